//! Whether a caller may read or write keys: the union of what its roles grant, as merged intervals.
//!
//! A single key needs a grant that contains it; a range needs to be covered whole; "from a key on" needs a grant without
//! end. An empty range is judged by its first key, as in etcd. The role root is above all this.

use super::store::{Permission, PermissionKind, State};
use super::{Caller, Error};
use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;

/// What is to be done with keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read them, or learn of them.
    Read,
    /// Write or delete them.
    Write,
}

impl State {
    /// Whether the caller may do this with all keys of the range. `None` is nobody in particular.
    pub fn check(&self, caller: Option<&Caller>, access: Access, range: &KeyRange) -> Result<(), Error> {
        if !self.is_enabled() {
            return Ok(());
        }
        let caller = caller.filter(|c| c.revision != 0).ok_or(Error::UserEmpty)?;
        if caller.revision < self.revision() {
            return Err(Error::OldRevision);
        }
        let (user, grants) = self.grants(&caller.user).ok_or(Error::PermissionDenied)?;
        if user.is_root() || grants.cover(access, range) { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// Whether the caller may do everything.
    pub fn check_root(&self, caller: Option<&Caller>) -> Result<(), Error> {
        if !self.is_enabled() {
            return Ok(());
        }
        let caller = caller.filter(|c| !c.user.is_empty()).ok_or(Error::UserEmpty)?;
        let user = self.user(&caller.user).ok_or(Error::UserNotFound)?;
        if user.is_root() { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// Whether it is known who the caller is.
    pub fn check_known(&self, caller: Option<&Caller>) -> Result<(), Error> {
        if self.is_enabled() && caller.is_none() { Err(Error::UserEmpty) } else { Ok(()) }
    }
}

/// Everything that a user's roles grant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    read: Intervals,
    write: Intervals,
}

impl Grants {
    /// Merges permissions in any order.
    pub fn merge<'p>(permissions: impl Iterator<Item = &'p Permission>) -> Grants {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let Some(interval) = Interval::of(permission) else { continue };
            match permission.kind {
                PermissionKind::Read => read.push(interval),
                PermissionKind::Write => write.push(interval),
                PermissionKind::ReadWrite => {
                    read.push(interval.clone());
                    write.push(interval);
                }
            }
        }
        Grants { read: Intervals::merge(read), write: Intervals::merge(write) }
    }

    /// Whether every key of the range is granted.
    fn cover(&self, access: Access, range: &KeyRange) -> bool {
        match access {
            Access::Read => self.read.cover(range),
            Access::Write => self.write.cover(range),
        }
    }
}

/// Keys from `start` up to, and without, `end`; `None` is no end. Not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

impl Interval {
    /// The keys of a permission; `None` when there are none, which only a restored file could hold.
    fn of(permission: &Permission) -> Option<Interval> {
        let range = KeyRange::from_wire(permission.key.clone(), permission.range_end.clone());
        if range.start.is_empty() || range.is_empty() {
            return None;
        }
        let end = match range.end {
            RangeEnd::Single => Some([&range.start[..], &[0]].concat().into()),
            RangeEnd::Unbounded => None,
            RangeEnd::Before(end) => Some(end),
        };
        Some(Interval { start: range.start, end })
    }

    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| &end[..] >= key)
    }
}

/// Intervals in order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Intervals(Vec<Interval>);

impl Intervals {
    fn merge(mut intervals: Vec<Interval>) -> Intervals {
        intervals.sort();
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for next in intervals {
            match merged.last_mut() {
                Some(last) if last.reaches(&next.start) => {
                    if last.end.is_some() && next.end.as_ref().is_none_or(|end| last.end.as_ref() < Some(end))
                    {
                        last.end = next.end;
                    }
                }
                _ => merged.push(next),
            }
        }
        Intervals(merged)
    }

    /// The only interval that can hold a key.
    fn around(&self, key: &[u8]) -> Option<&Interval> {
        let place = self.0.partition_point(|interval| &interval.start[..] <= key);
        let interval = self.0.get(place.checked_sub(1)?)?;
        interval.end.as_ref().is_none_or(|end| key < &end[..]).then_some(interval)
    }

    fn cover(&self, range: &KeyRange) -> bool {
        // An empty start is below every key that a permission can name.
        let Some(interval) = self.around(&range.start) else { return false };
        match &range.end {
            RangeEnd::Single => true,
            RangeEnd::Unbounded => interval.end.is_none(),
            RangeEnd::Before(end) => interval.reaches(end),
        }
    }
}
