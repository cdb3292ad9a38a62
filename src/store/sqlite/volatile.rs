//! Detects folders that are lost with the machine or the pod, by their mounts (tmpfs, `emptyDir`).
//! <https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::store::owner_only;

/// Why the file at this path will be lost, if that can be detected.
pub fn why_volatile(path: &Path) -> Option<&'static str> {
    why_lost(&fs::read_to_string("/proc/self/mountinfo").ok()?, &fs::canonicalize(owner_only::folder(path)).ok()?)
}

/// The same for a folder, without symbolic links, with the text of `mountinfo`.
fn why_lost(mounts: &str, folder: &Path) -> Option<&'static str> {
    // Of several mounts at one path, the last one counts.
    let (_, root, kind) = mounts
        .lines()
        .filter_map(mount)
        .filter(|(place, ..)| folder.starts_with(place))
        .max_by_key(|(place, ..)| place.components().count())?;
    if matches!(kind, "tmpfs" | "ramfs") {
        return Some("memory (tmpfs): it is lost when the machine restarts, or with the pod");
    }
    // The kubelet keeps `emptyDir` volumes in a folder of this name.
    root.contains("/kubernetes.io~empty-dir/").then_some("an emptyDir: it is lost with the pod")
}

/// Mount point, root within the file system, and type of the file system in a line of `mountinfo`.
fn mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (head, tail) = line.split_once(" - ")?;
    let mut fields = head.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    // White space and backslashes are written in octal.
    let place = place.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    Some((place.into(), root, tail.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw
31 22 254:1 /var/lib/kubelet/pods/6f1/volumes/kubernetes.io~empty-dir/state /var/lib/doorward rw - ext4 /dev/vda1 rw
32 22 254:1 /var/lib/kubelet/pods/6f1/volumes/kubernetes.io~local-volume/pv /var/lib/claimed rw master:9 - ext4 /dev/vda1 rw
33 22 0:40 / /mnt/with\\040space rw - tmpfs tmpfs rw
34 33 254:2 / /mnt/with\\040space/disk rw - xfs /dev/vdb rw
35 22 0:41 / /over rw - tmpfs tmpfs rw
36 35 254:3 / /over rw - btrfs /dev/vdc rw
not a mount
";

    fn judged(folder: &str) -> Option<&'static str> {
        why_lost(MOUNTS, Path::new(folder))
    }

    #[test]
    fn what_is_in_memory_or_goes_with_the_pod_is_told_from_what_stays() {
        for folder in ["/dev/shm", "/dev/shm/deep/er", "/mnt/with space"] {
            assert!(judged(folder).is_some_and(|why| why.contains("tmpfs")), "{folder}");
        }
        assert!(judged("/var/lib/doorward").is_some_and(|why| why.contains("emptyDir")));
        for folder in ["/", "/dev/shmoo", "/var/lib", "/var/lib/claimed", "/mnt/with space/disk", "/over/it"] {
            assert_eq!(judged(folder), None, "{folder}");
        }
        assert_eq!(why_lost("", Path::new("/")), None);
    }

    #[test]
    fn a_file_of_this_machine_is_judged_by_its_folder() {
        assert_eq!(why_volatile(Path::new("/proc/store.db")), None);
        assert_eq!(why_volatile(Path::new("/no/such/folder/store.db")), None);
    }
}
