//! What a process used, and how long it takes to start.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// CPU time of a process with all its threads, also those that have ended. It is what utime + stime in
/// `/proc/PID/stat` say, in nanoseconds instead of ticks of 10 ms.
pub fn cpu(pid: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).with_context(|| format!("no process {pid}"))?;
    Ok(clock.now().with_context(|| format!("cannot read the CPU time of process {pid}"))?.into())
}

/// A figure in KiB from `/proc/PID/status`: `VmRSS` for the resident memory, `VmHWM` for its peak.
pub fn memory_kib(pid: i32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value =
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {field} in {path}"))?;
    Ok(value.parse()?)
}

/// The answer to a GET on a connection of its own, head and body.
pub fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    let mut reader = crate::message::Reader::default();
    let mut complete = false;
    while !complete {
        let read = stream.read(&mut buffer).with_context(|| format!("no answer from {address}"))?;
        if read == 0 {
            bail!("{address} closed the connection without an answer");
        }
        answer.extend_from_slice(&buffer[..read]);
        reader.feed(&buffer[..read], |_head| complete = true)?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Starts a command several times; the median of the milliseconds until a GET of `ready` answers 200.
pub fn start_to_ready(command: &[String], ready: &str, times: usize) -> Result<f64> {
    let (address, path) = crate::split_url(ready)?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut measured = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let outcome = loop {
            if get(address, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                break Ok(start.elapsed().as_secs_f64() * 1000.0);
            }
            if let Some(status) = child.try_wait()? {
                break Err(anyhow::anyhow!("{program} ended before it was ready: {status}"));
            }
            if start.elapsed() > Duration::from_secs(10) {
                break Err(anyhow::anyhow!("{program} was not ready after 10 s"));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        child.kill().context("cannot end the process")?;
        child.wait()?;
        measured.push(outcome?);
    }
    Ok(crate::report::median(measured))
}
