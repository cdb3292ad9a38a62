//! The paths of the API.

/// What a path names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route<'p> {
    /// The description of the API, for everybody.
    Description,
    Configuration(Configuration),
    Store(Operation<'p>),
}

/// An operation on the configuration, for which clients on this machine need no token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Configuration {
    Reload,
    Generation,
    Secrets,
}

/// An operation on the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation<'p> {
    Events,
    Replay,
    Purge,
    Event(&'p str, &'p str),
    EventReplay(&'p str, &'p str),
    Recover,
    Backup,
}

impl<'p> Route<'p> {
    pub(super) fn at(path: &'p str) -> Option<Self> {
        let parts: Vec<_> = path.strip_prefix("/api/v1/")?.split('/').collect();
        match parts.as_slice() {
            ["openapi.json"] => Some(Self::Description),
            ["reload"] => Some(Self::Configuration(Configuration::Reload)),
            ["generation"] => Some(Self::Configuration(Configuration::Generation)),
            ["secrets"] => Some(Self::Configuration(Configuration::Secrets)),
            ["events"] => Some(Self::Store(Operation::Events)),
            ["events", "replay"] => Some(Self::Store(Operation::Replay)),
            ["events", "purge"] => Some(Self::Store(Operation::Purge)),
            ["events", source, number] => Some(Self::Store(Operation::Event(source, number))),
            ["events", source, number, "replay"] => Some(Self::Store(Operation::EventReplay(source, number))),
            ["store", "recover"] => Some(Self::Store(Operation::Recover)),
            ["store", "backup"] => Some(Self::Store(Operation::Backup)),
            _ => None,
        }
    }

    pub(super) fn allows(self) -> &'static str {
        let reads = match self {
            Self::Description => true,
            Self::Configuration(asked) => !matches!(asked, Configuration::Reload),
            Self::Store(operation) => matches!(operation, Operation::Events | Operation::Event(..)),
        };
        if reads { "GET, HEAD" } else { "POST" }
    }
}
