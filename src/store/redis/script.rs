//! Lua scripts, which Redis runs atomically, and calls of them by `EVALSHA` or `EVAL`.

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
    /// The SHA-1 of the text, by which Redis knows it after the first `EVAL`.
    digest: String,
}

/// A script with its keys and arguments, which are concatenated in one buffer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) script: &'static Script,
    /// The number of keys, which come first.
    keys: usize,
    text: Vec<u8>,
    /// Where each key and argument ends in `text`.
    ends: Vec<usize>,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, digest: const_hex::encode(Sha1::digest(text)) }
    }

    pub(crate) fn call(&'static self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Call {
        let call = Call { script: self, keys: 0, text: Vec::with_capacity(1024), ends: Vec::with_capacity(32) };
        let call = keys.into_iter().fold(call, Call::argument);
        Call { keys: call.ends.len(), ..call }
    }
}

impl Call {
    pub(crate) fn argument(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.text.extend_from_slice(argument.as_ref());
        self.ends.push(self.text.len());
        self
    }

    /// The call as `EVAL`, with the text of the script.
    pub(crate) fn eval(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    /// The call as `EVALSHA`, with the digest of the script.
    pub(crate) fn evalsha(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = Cmd::with_capacity(self.ends.len() + 3, verb.len() + script.len() + 20 + self.text.len());
        command.arg(verb).arg(script).arg(self.keys);
        let mut rest = &*self.text;
        let begins = std::iter::once(&0).chain(&self.ends);
        for length in self.ends.iter().zip(begins).map(|(end, begin)| end - begin) {
            let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            command.arg(part);
            rest = behind;
        }
        command
    }

    /// Runs the call by `EVALSHA`, and by `EVAL` if Redis does not know the script.
    pub(crate) async fn run<T: FromRedisValue>(&self, mut connection: MultiplexedConnection) -> Result<T, RedisError> {
        match self.evalsha().query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.eval().query_async(&mut connection).await
            }
            answer => answer,
        }
    }
}
