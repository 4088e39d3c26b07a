//! The reader of etcd's log against logs that a few lines here write, whole and damaged in every way.

use super::*;
use proptest::prelude::*;

/// Writes a log as etcd does: a file for each list of records, `begin` being the index in its name.
pub(in crate::import) struct Writer {
    dir: tempfile::TempDir,
    crc: u32,
    files: u64,
}

impl Writer {
    pub(in crate::import) fn new() -> Writer {
        Writer { dir: tempfile::tempdir().unwrap(), crc: 0, files: 0 }
    }

    pub(in crate::import) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(in crate::import) fn file(&mut self, begin: u64, items: &[Item]) -> PathBuf {
        let mut bytes = Vec::new();
        self.record(&mut bytes, 4, &[]);
        for item in items {
            match item {
                Item::Metadata(metadata) => self.record(&mut bytes, 1, &metadata.encode_to_vec()),
                Item::Entry(entry) => self.record(&mut bytes, 2, &entry.encode_to_vec()),
                Item::State(state) => self.record(&mut bytes, 3, &state.encode_to_vec()),
            }
        }
        let path = self.dir().join(format!("{:016x}-{begin:016x}.wal", self.files));
        self.files += 1;
        bytes.resize(bytes.len() + 4096, 0); // the file is made larger ahead of need
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn record(&mut self, out: &mut Vec<u8>, kind: i64, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        let frame =
            Frame { kind: Some(kind), crc: Some(self.crc), data: Some(data.to_vec()) }.encode_to_vec();
        let padding = (8 - frame.len() % 8) % 8;
        let length = frame.len() as u64 | if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&frame);
        out.resize(out.len() + padding, 0);
    }
}

pub(in crate::import) fn entry(term: u64, index: u64, data: &[u8]) -> Item {
    Item::Entry(Entry { kind: Some(0), term: Some(term), index: Some(index), data: Some(data.to_vec()) })
}

pub(in crate::import) fn metadata() -> Item {
    Item::Metadata(Metadata { member: Some(7), cluster: Some(9) })
}

fn read(dir: &Path, index: u64) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    Wal::open(dir, index)?.read(&mut |_, item| {
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

/// Three files, the entries 1 to 3, 4 to 6 and 7 to 9.
fn three_files() -> (Writer, Vec<Vec<Item>>, Vec<PathBuf>) {
    let mut writer = Writer::new();
    let state = Item::State(HardState { term: Some(2), vote: Some(7), commit: Some(3) });
    let (mut items, mut paths) = (Vec::new(), Vec::new());
    for begin in [1, 4, 7] {
        let mut file = vec![metadata(), state.clone()];
        file.extend((begin..begin + 3).map(|index| entry(2, index, &vec![index as u8; 700])));
        paths.push(writer.file(begin, &file));
        items.push(file);
    }
    (writer, items, paths)
}

#[test]
fn files_are_chosen_by_index_and_read_in_order() {
    let (writer, items, _) = three_files();
    assert_eq!(read(writer.dir(), 1).unwrap(), items.concat());
    assert_eq!(read(writer.dir(), 3).unwrap(), items.concat());
    assert_eq!(read(writer.dir(), 5).unwrap(), items[1..].concat());
    assert_eq!(read(writer.dir(), 900).unwrap(), items[2]);
}

#[test]
fn missing_files_are_named() {
    let (writer, _, paths) = three_files();
    let error = read(writer.dir(), 0).unwrap_err().to_string();
    assert!(error.ends_with("no log file begins at or before entry 0"), "{error}");
    std::fs::remove_file(&paths[1]).unwrap();
    let error = read(writer.dir(), 1).unwrap_err().to_string();
    assert!(error.contains("a log file between 0000000000000000-0000000000000001.wal"), "{error}");
    assert!(read(writer.dir(), 7).is_ok(), "not needed any more");
}

#[test]
fn a_torn_end_is_left_out_in_the_last_file_only() {
    let (writer, items, paths) = three_files();
    let whole: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // The last entry ends 4096 bytes before the end; it is cut, or a sector of it was never written.
    let cut = |n: usize| whole[n][..whole[n].len() - 4096 - 100].to_vec();
    let holey = |n: usize| {
        let mut bytes = whole[n].clone();
        let sector = (bytes.len() - 4096 - 512) / 512 * 512;
        bytes[sector..sector + 512].fill(0);
        bytes
    };
    let expected = [items[0].clone(), items[1].clone(), items[2][..4].to_vec()].concat();
    for torn in [cut(2), holey(2)] {
        std::fs::write(&paths[2], torn).unwrap();
        assert_eq!(read(writer.dir(), 1).unwrap(), expected);
    }
    std::fs::write(&paths[2], &whole[2]).unwrap();
    for torn in [cut(1), holey(1)] {
        std::fs::write(&paths[1], torn).unwrap();
        let error = read(writer.dir(), 1).unwrap_err().to_string();
        assert!(error.contains("the log is damaged at offset"), "{error}");
    }
}

#[test]
fn damage_in_the_middle_is_no_torn_end() {
    let (writer, _, paths) = three_files();
    let mut bytes = std::fs::read(&paths[2]).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&paths[2], bytes).unwrap();
    let error = read(writer.dir(), 1).unwrap_err().to_string();
    assert!(error.contains("a record does not match its checksum"), "{error}");
}

#[test]
fn a_file_that_does_not_continue_the_one_before_is_damage() {
    let (writer, _, paths) = three_files();
    let mut bytes = std::fs::read(&paths[2]).unwrap();
    bytes[11] ^= 1; // inside the checksum that it begins with
    std::fs::write(&paths[2], bytes).unwrap();
    let error = read(writer.dir(), 1).unwrap_err().to_string();
    assert!(error.contains("the checksum of the file before is another"), "{error}");
}

proptest! {
    #[test]
    fn damage_is_an_error_or_an_early_end(
        file in 0usize..3, at in 0usize..7000, byte: u8, len in 1usize..600, cut: bool,
    ) {
        let (writer, items, paths) = three_files();
        let mut bytes = std::fs::read(&paths[file]).unwrap();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            let end = (at + len).min(bytes.len());
            bytes[at..end].fill(byte);
        }
        std::fs::write(&paths[file], bytes).unwrap();
        if let Ok(found) = read(writer.dir(), 1) {
            // Zeros over a length end a file early; nothing that is read was not written.
            let all = items.concat();
            prop_assert!(found.iter().all(|item| all.contains(item)));
            prop_assert!(found.len() <= all.len());
        }
    }

    #[test]
    fn foreign_bytes_do_not_panic(bytes: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("{:016x}-{:016x}.wal", 0, 0)), bytes).unwrap();
        let _ = read(dir.path(), 0);
    }
}
