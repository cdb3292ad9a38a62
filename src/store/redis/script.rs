//! Scripts, which Redis runs in one step, and calls of them.

use redis::Cmd;
use redis::ErrorKind;
use redis::FromRedisValue;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::aio::MultiplexedConnection;
use sha1::Digest as _;
use sha1::Sha1;

/// A script.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    /// What Redis knows it by, once it has seen the text.
    digest: String,
}

/// A script with its keys and arguments.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, digest: const_hex::encode(Sha1::digest(text)) }
    }

    pub(crate) fn call(&'static self, keys: impl IntoIterator<Item = String>) -> Call {
        Call { script: self, keys: keys.into_iter().collect(), arguments: Vec::new() }
    }
}

impl Call {
    pub(crate) fn argument(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// As a command that sends the script along.
    pub(crate) fn in_full(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    /// As a command that only names the script.
    pub(crate) fn by_name(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }

    pub(crate) async fn run<T: FromRedisValue>(&self, mut connection: MultiplexedConnection) -> Result<T, RedisError> {
        match self.by_name().query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.in_full().query_async(&mut connection).await
            }
            answer => answer,
        }
    }
}
