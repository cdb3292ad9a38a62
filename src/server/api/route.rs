//! The paths of the API.

/// The operation that a path names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route<'p> {
    Description,
    Events,
    Replay,
    Purge,
    Event(&'p str, &'p str),
    EventReplay(&'p str, &'p str),
    Recover,
    Backup,
    Reload,
    Generation,
    Secrets,
}

impl<'p> Route<'p> {
    pub(super) fn at(path: &'p str) -> Option<Self> {
        let parts: Vec<_> = path.strip_prefix("/api/v1/")?.split('/').collect();
        match parts.as_slice() {
            ["openapi.json"] => Some(Self::Description),
            ["events"] => Some(Self::Events),
            ["events", "replay"] => Some(Self::Replay),
            ["events", "purge"] => Some(Self::Purge),
            ["events", source, number] => Some(Self::Event(source, number)),
            ["events", source, number, "replay"] => Some(Self::EventReplay(source, number)),
            ["store", "recover"] => Some(Self::Recover),
            ["store", "backup"] => Some(Self::Backup),
            ["reload"] => Some(Self::Reload),
            ["generation"] => Some(Self::Generation),
            ["secrets"] => Some(Self::Secrets),
            _ => None,
        }
    }

    pub(super) fn allows(self) -> &'static str {
        match self {
            Self::Description | Self::Events | Self::Event(..) | Self::Generation | Self::Secrets => "GET, HEAD",
            Self::Replay | Self::Purge | Self::EventReplay(..) | Self::Recover | Self::Backup | Self::Reload => "POST",
        }
    }

    /// Whether clients on this machine need no token.
    pub(super) fn is_local(self) -> bool {
        matches!(self, Self::Reload | Self::Generation | Self::Secrets)
    }
}
