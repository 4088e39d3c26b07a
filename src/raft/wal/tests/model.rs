//! Random appends, cuts, purges and reopenings against a plain vector.

use proptest::prelude::*;

use super::super::{Batch, Durability, Error, LogId, Options, Recovered, Wal};
use super::{append, id, options, payload, put};

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, len: usize },
    Truncate { back: u64 },
    TruncateAll,
    Purge { ahead: u64 },
    PurgeBeyond { ahead: u64 },
    Vote(u8),
    Commit { back: u64 },
    Read { back: u64, count: u64, max_bytes: usize },
    Reopen { scan_back: Option<u64> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1u64..40, 0usize..4000).prop_map(|(count, len)| Step::Append { count, len }),
        1 => (1u64..3, 60_000usize..200_000).prop_map(|(count, len)| Step::Append { count, len }),
        3 => (0u64..200).prop_map(|back| Step::Truncate { back }),
        1 => Just(Step::TruncateAll),
        3 => (0u64..200).prop_map(|ahead| Step::Purge { ahead }),
        1 => (1u64..100).prop_map(|ahead| Step::PurgeBeyond { ahead }),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => (0u64..50).prop_map(|back| Step::Commit { back }),
        4 => (0u64..300, 0u64..100, 0usize..100_000)
            .prop_map(|(back, count, max_bytes)| Step::Read { back, count, max_bytes }),
        2 => prop::option::of(0u64..200).prop_map(|scan_back| Step::Reopen { scan_back }),
    ]
}

#[derive(Default)]
struct Model {
    state: Recovered,
    /// Live entries, in order.
    entries: Vec<(LogId, usize)>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.state.last.map_or(1, |last| last.index + 1)
    }

    fn cut(&mut self, keep: Option<LogId>) {
        self.term += 1;
        self.entries.retain(|entry| keep.is_some_and(|keep| entry.0.index <= keep.index));
        self.state.last = self.entries.last().map(|entry| entry.0).or(self.state.purged);
    }

    /// Changes the model and answers the batch that does the same to the log.
    fn change(&mut self, step: &Step) -> Batch {
        let mut batch = Batch::new();
        match *step {
            Step::Append { count, len } => {
                for _ in 0..count {
                    let log_id = id(self.term, self.next());
                    put(&mut batch, log_id, len);
                    self.entries.push((log_id, len));
                    self.state.last = Some(log_id);
                }
            }
            Step::Truncate { back } => {
                let at = self.entries.len().saturating_sub(back as usize);
                let keep = at.checked_sub(1).map(|at| self.entries[at].0).or(self.state.purged);
                batch.truncate_after(keep);
                self.cut(keep);
            }
            Step::TruncateAll => {
                batch.truncate_after(None);
                self.cut(None);
            }
            Step::Purge { ahead } => {
                if let Some((log_id, _)) = self.entries.get(ahead as usize).copied() {
                    batch.purge(log_id);
                    self.entries.drain(..=ahead as usize);
                    self.state.purged = Some(log_id);
                }
            }
            Step::PurgeBeyond { ahead } => {
                let log_id = id(self.term, self.next() + ahead);
                batch.purge(log_id);
                self.entries.clear();
                (self.state.purged, self.state.last) = (Some(log_id), Some(log_id));
            }
            Step::Vote(vote) => {
                batch.vote(&[vote; 20]);
                self.state.vote = Some(vec![vote; 20]);
            }
            Step::Commit { back } => {
                let log_id = id(self.term, self.next().saturating_sub(back));
                batch.committed(log_id);
                self.state.committed = Some(log_id);
            }
            Step::Read { .. } | Step::Reopen { .. } => (),
        }
        batch
    }

    fn check_all(&self, wal: &Wal) {
        let mut position = 0;
        let from = self.entries.first().map_or(self.next(), |entry| entry.0.index);
        wal.scan(from, |log_id, bytes| {
            let (expected, len) = self.entries[position];
            assert_eq!(log_id, expected);
            assert!(bytes == payload(expected, len), "payload of {expected}");
            position += 1;
        })
        .expect("scan");
        assert_eq!(position, self.entries.len());
    }

    fn check_read(&self, wal: &Wal, from: u64, count: u64, max_bytes: usize) {
        let result = wal.read(from, from + count, max_bytes);
        if count > 0 && self.state.purged.is_some_and(|purged| from <= purged.index) {
            return assert!(matches!(result, Err(Error::Purged(_))));
        }
        let mut found = result.expect("read").into_iter();
        let wanted = self.entries.iter().filter(|entry| (from..from + count).contains(&entry.0.index));
        let mut bytes = 0;
        for (position, (log_id, len)) in wanted.enumerate() {
            let expected = payload(*log_id, *len);
            bytes += expected.len();
            if position > 0 && bytes > max_bytes {
                break;
            }
            assert!(found.next() == Some((*log_id, expected)), "entry {log_id}");
            if bytes >= max_bytes {
                break;
            }
        }
        assert_eq!(found.next(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(steps in prop::collection::vec((step(), any::<bool>()), 1..60)) {
        let dir = tempfile::tempdir().expect("tempdir");
        // 16 KiB: every few steps begin a segment.
        let options = Options { segment_bytes: 16 << 10, ..options(dir.path()) };
        let mut model = Model { term: 1, ..Model::default() };
        let mut wal = Wal::open(options.clone()).expect("open").0;
        for (step, sync) in steps {
            let durability = if sync { Durability::Sync } else { Durability::Write };
            append(&wal, model.change(&step), durability).expect("append");
            match step {
                Step::Read { back, count, max_bytes } => {
                    model.check_read(&wal, model.next().saturating_sub(back).max(1), count, max_bytes);
                }
                Step::Reopen { scan_back } => {
                    drop(wal);
                    let scan_from = scan_back.map(|back| model.next().saturating_sub(back));
                    let recovered;
                    (wal, recovered) = Wal::open(Options { scan_from, ..options.clone() }).expect("open");
                    prop_assert_eq!(&recovered, &model.state);
                }
                _ => (),
            }
        }
        model.check_all(&wal);
        drop(wal);
        let (wal, recovered) = Wal::open(options).expect("open");
        prop_assert_eq!(&recovered, &model.state);
        model.check_all(&wal);
    }
}
