//! `doorward sign` and `doorward send`: requests as a provider would sign them.

mod all_profiles;
mod commands;
