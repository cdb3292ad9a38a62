//! A file in memory that stands for a disk: a file system of the test process (FUSE) serves it, and fails as it is
//! told.
//!
//! It keeps what was flushed apart from what was only written, as a disk with a cache does, so that the power can fail.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use fuser::Errno;
use fuser::FileAttr;
use fuser::FileHandle;
use fuser::FileType;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::LockOwner;
use fuser::OpenFlags;
use fuser::ReplyAttr;
use fuser::ReplyData;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyOpen;
use fuser::ReplyWrite;
use fuser::Request;
use fuser::WriteFlags;

/// What a disk writes whole or not at all.
const BLOCK: usize = 4096;
const NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);
/// For ever, as far as a test is concerned.
const VALID: Duration = Duration::from_secs(3600);

/// The medium, and what is wrong with it.
pub struct Image {
    state: Mutex<State>,
    closed: Condvar,
}

struct State {
    flushed: Vec<u8>,
    /// Blocks that were written since the last flush, by number.
    written: BTreeMap<usize, [u8; BLOCK]>,
    /// How many more writes fail.
    bad_writes: u64,
    bad_flushes: bool,
    /// Nothing is read or written until then.
    stalled: Instant,
    /// Without power it answers to nothing.
    powered: bool,
    /// How often the file is open.
    open: usize,
}

impl Image {
    /// An empty disk of so many bytes, of which memory has what is written.
    pub fn new(bytes: usize) -> Arc<Self> {
        let state = State {
            flushed: vec![0; bytes],
            written: BTreeMap::new(),
            bad_writes: 0,
            bad_flushes: false,
            stalled: Instant::now(),
            powered: true,
            open: 0,
        };
        Arc::new(Self { state: Mutex::new(state), closed: Condvar::new() })
    }

    /// So many writes from now on fail.
    pub fn fail_writes(&self, number: u64) {
        self.state.lock().unwrap().bad_writes = number;
    }

    /// All flushes from now on fail, and lose what was to be flushed.
    pub fn fail_flushes(&self) {
        self.state.lock().unwrap().bad_flushes = true;
    }

    /// Writes and flushes succeed again.
    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        (state.bad_writes, state.bad_flushes) = (0, false);
    }

    /// Nothing is read or written for so long.
    pub fn stall(&self, time: Duration) {
        self.state.lock().unwrap().stalled = Instant::now() + time;
    }

    /// From now on nothing is read, written or flushed.
    pub fn power_off(&self) {
        self.state.lock().unwrap().powered = false;
    }

    /// What was not flushed is lost, but for the blocks that `kept` says were written by chance.
    pub fn power_on(&self, mut kept: impl FnMut() -> bool) {
        let mut state = self.state.lock().unwrap();
        state.written.retain(|_, _| kept());
        state.flush();
        state.powered = true;
    }

    /// Waits until nobody has it open; whether that came to be.
    pub fn wait_until_closed(&self, patience: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let (_state, waited) = self.closed.wait_timeout_while(state, patience, |state| state.open > 0).unwrap();
        !waited.timed_out()
    }

    /// The state as soon as the disk does not stall, if it has power.
    fn well(&self) -> Result<std::sync::MutexGuard<'_, State>, Errno> {
        loop {
            let state = self.state.lock().unwrap();
            let left = state.stalled.saturating_duration_since(Instant::now());
            if left.is_zero() || !state.powered {
                return if state.powered { Ok(state) } else { Err(Errno::EIO) };
            }
            drop(state);
            // Short, because the power may fail meanwhile.
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    fn bytes(&self) -> usize {
        self.state.lock().unwrap().flushed.len()
    }
}

impl State {
    fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        let end = self.flushed.len().min(offset + size);
        let mut bytes = self.flushed[offset.min(end)..end].to_vec();
        for (number, block) in self.written.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let (from, to) = (offset.max(number * BLOCK), end.min((number + 1) * BLOCK));
            bytes[from - offset..to - offset].copy_from_slice(&block[from - number * BLOCK..to - number * BLOCK]);
        }
        bytes
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        let end = offset + bytes.len();
        if end > self.flushed.len() {
            return Err(Errno::ENOSPC);
        }
        if self.bad_writes > 0 {
            self.bad_writes -= 1;
            return Err(Errno::EIO);
        }
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let start = number * BLOCK;
            let block = self
                .written
                .entry(number)
                .or_insert_with(|| self.flushed[start..start + BLOCK].try_into().expect("a disk has whole blocks"));
            let (from, to) = (offset.max(start), end.min(start + BLOCK));
            block[from - start..to - start].copy_from_slice(&bytes[from - offset..to - offset]);
        }
        Ok(())
    }

    fn flush(&mut self) {
        for (number, block) in std::mem::take(&mut self.written) {
            self.flushed[number * BLOCK..(number + 1) * BLOCK].copy_from_slice(&block);
        }
    }
}

/// The file system that has the image as its only file.
pub struct Folder(pub Arc<Image>);

impl Folder {
    fn attributes(&self, of: INodeNo) -> FileAttr {
        let file = of == FILE;
        let size = if file { self.0.bytes() as u64 } else { 0 };
        FileAttr {
            ino: of,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file { FileType::RegularFile } else { FileType::Directory },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Folder {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&VALID, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, of: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&VALID, &self.attributes(of));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.state.lock().unwrap().open += 1;
        // Through the page cache, a write would come in parts where it begins or ends within a page. When a later part
        // fails, the write is short, which the loop device takes for success (seen on Linux 6.18): nobody would learn
        // of the failure. Past the page cache, a write of up to 1 MiB comes whole.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.state.lock().unwrap().open -= 1;
        self.0.closed.notify_all();
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.well() {
            Ok(state) => reply.data(&state.read(offset as usize, size as usize)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.well().and_then(|mut state| state.write(offset as usize, bytes)) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.0.well() {
            Ok(mut state) if state.bad_flushes => {
                state.written.clear();
                reply.error(Errno::EIO);
            }
            Ok(mut state) => {
                state.flush();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }
}
