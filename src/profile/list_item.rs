//! Entries of a list within one value, such as the entry `v1` of `t=1492774577,v1=5257a8…`.

/// One key of a list such as `t=1492774577,v1=5257a8…` (Stripe) or `v1,g0hM9S… v1,…` (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key; `{name}` is replaced by a parameter of the source.
    pub key: String,
    /// The character between two entries.
    pub separator: char,
    /// The character between key and value.
    pub assign: char,
}

impl Item {
    /// Checks that an entry of a list can have this key.
    pub(super) fn validated(self) -> Result<Self, String> {
        let Self { key, separator, assign } = &self;
        if key.is_empty() {
            return Err(
                "item is empty, and no entry of a list has such a key; write item = \"v1\", or leave it out where the \
                        value stands alone"
                    .to_owned(),
            );
        }
        if separator == assign {
            return Err(format!(
                "separator and assign are both {assign:?}, so that no entry has a key; name what stands between two entries, \
                 and what between key and value"
            ));
        }
        // Values of parameters are not known here, and not checked.
        if let Some(ends) = key.chars().find(|character| character == separator || character == assign) {
            let what = if ends == *separator { "separator" } else { "assign" };
            return Err(format!(
                "item {key:?} has {ends:?} in it, which ends a key in such a list ({what}): none is ever found"
            ));
        }
        Ok(self)
    }

    /// The value of an entry, if it has this key. Blanks around the entry are ignored.
    pub fn value<'v>(&self, entry: &'v str) -> Option<&'v str> {
        let (key, value) = entry.trim_matches(' ').split_once(self.assign)?;
        (key == self.key).then_some(value)
    }

    /// The values of all entries with this key, in order.
    pub fn values<'v>(&'v self, list: &'v str) -> impl Iterator<Item = &'v str> + Clone {
        list.split(self.separator).filter_map(|entry| self.value(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_list_are_found_by_key() {
        let stripe = Item { key: "v1".to_owned(), separator: ',', assign: '=' };
        assert_eq!(stripe.values("t=1,v1=a, v1=b,v0=c,v1").collect::<Vec<_>>(), ["a", "b"]);
        let standard = Item { key: "v1".to_owned(), separator: ' ', assign: ',' };
        assert_eq!(standard.values("v1,a= v2,b v1,c").collect::<Vec<_>>(), ["a=", "c"]);
    }
}
