//! Which groups of watchers want a key: exact keys in a hash map, ranges in a tree that finds all ranges around a key.
//!
//! The tree is a treap ordered by (start, end, group); each node knows the largest end below it, so that a search leaves out
//! every subtree that ends before the key: it takes O(log n + matches). Nodes live in one vector and name each other
//! by position.

use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::HashMap;

/// Position of a node; `NIL` is none.
type Link = u32;
const NIL: Link = Link::MAX;

/// End of a range; unbounded is above every key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Unbounded,
}

impl End {
    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < &end[..],
            End::Unbounded => true,
        }
    }
}

struct Node<G> {
    start: Bytes,
    end: End,
    group: G,
    /// The heap order of the treap; random, so that no order of insertion makes it deep.
    priority: u32,
    /// Largest end in this subtree.
    end_max: End,
    left: Link,
    right: Link,
}

/// See the module.
pub struct Index<G> {
    exact: HashMap<Bytes, Vec<G>>,
    nodes: Vec<Node<G>>,
    free: Vec<Link>,
    root: Link,
}

impl<G> Default for Index<G> {
    fn default() -> Index<G> {
        Index { exact: HashMap::new(), nodes: Vec::new(), free: Vec::new(), root: NIL }
    }
}

impl<G: Copy + Ord> Index<G> {
    /// Adds a group that wants `range`. An empty range matches nothing and is not kept.
    pub fn insert(&mut self, range: &KeyRange, group: G) {
        let Some(end) = end_of(range) else {
            self.exact.entry(range.start.clone()).or_default().push(group);
            return;
        };
        if range.is_empty() {
            return;
        }
        let node = Node {
            start: range.start.clone(),
            end_max: end.clone(),
            end,
            group,
            priority: rand::random(),
            left: NIL,
            right: NIL,
        };
        let link = match self.free.pop() {
            Some(link) => {
                self.nodes[link as usize] = node;
                link
            }
            None => {
                self.nodes.push(node);
                Link::try_from(self.nodes.len() - 1).expect("fewer than 2^32 watched ranges")
            }
        };
        self.root = self.insert_below(self.root, link);
    }

    /// Takes a group out again.
    pub fn remove(&mut self, range: &KeyRange, group: G) {
        let Some(end) = end_of(range) else {
            if let Some(groups) = self.exact.get_mut(&range.start) {
                groups.retain(|g| *g != group);
                if groups.is_empty() {
                    self.exact.remove(&range.start);
                }
            }
            return;
        };
        self.root = self.remove_below(self.root, &range.start, &end, group);
    }

    /// Appends every group that wants `key`.
    pub fn matches(&self, key: &[u8], found: &mut Vec<G>) {
        if let Some(groups) = self.exact.get(key) {
            found.extend_from_slice(groups);
        }
        self.matches_below(self.root, key, found);
    }

    fn matches_below(&self, link: Link, key: &[u8], found: &mut Vec<G>) {
        if link == NIL {
            return;
        }
        let node = &self.nodes[link as usize];
        if !node.end_max.is_above(key) {
            return;
        }
        self.matches_below(node.left, key, found);
        if &node.start[..] <= key {
            if node.end.is_above(key) {
                found.push(node.group);
            }
            self.matches_below(node.right, key, found);
        }
    }

    fn order(&self, link: Link, start: &Bytes, end: &End, group: G) -> Ordering {
        let node = &self.nodes[link as usize];
        (start, end, group).cmp(&(&node.start, &node.end, node.group))
    }

    /// Puts the node `new` into the subtree of `link`; returns its new root.
    fn insert_below(&mut self, link: Link, new: Link) -> Link {
        if link == NIL {
            return new;
        }
        let node = &self.nodes[new as usize];
        let goes_left = self.order(link, &node.start, &node.end, node.group) == Ordering::Less;
        let child = self.child(link, goes_left);
        let child = self.insert_below(child, new);
        self.set_child(link, goes_left, child);
        self.update(link);
        if self.nodes[child as usize].priority > self.nodes[link as usize].priority {
            self.rotate_up(link, goes_left)
        } else {
            link
        }
    }

    fn remove_below(&mut self, link: Link, start: &Bytes, end: &End, group: G) -> Link {
        if link == NIL {
            return NIL;
        }
        let order = self.order(link, start, end, group);
        if order == Ordering::Equal {
            let (left, right) = (self.child(link, true), self.child(link, false));
            self.free.push(link);
            return self.join(left, right);
        }
        let goes_left = order == Ordering::Less;
        let child = self.child(link, goes_left);
        let child = self.remove_below(child, start, end, group);
        self.set_child(link, goes_left, child);
        self.update(link);
        link
    }

    /// One tree of two, all of `left` being before all of `right`.
    fn join(&mut self, left: Link, right: Link) -> Link {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        let left_is_root = self.nodes[left as usize].priority > self.nodes[right as usize].priority;
        let root = if left_is_root {
            let child = self.child(left, false);
            let child = self.join(child, right);
            self.set_child(left, false, child);
            left
        } else {
            let child = self.child(right, true);
            let child = self.join(left, child);
            self.set_child(right, true, child);
            right
        };
        self.update(root);
        root
    }

    /// Makes a child of `link` the root of its subtree.
    fn rotate_up(&mut self, link: Link, left: bool) -> Link {
        let child = self.child(link, left);
        let inner = self.child(child, !left);
        self.set_child(link, left, inner);
        self.set_child(child, !left, link);
        self.update(link);
        self.update(child);
        child
    }

    fn child(&self, link: Link, left: bool) -> Link {
        let node = &self.nodes[link as usize];
        if left { node.left } else { node.right }
    }

    fn set_child(&mut self, link: Link, left: bool, child: Link) {
        let node = &mut self.nodes[link as usize];
        if left {
            node.left = child;
        } else {
            node.right = child;
        }
    }

    /// Recomputes what a node knows of its subtree.
    fn update(&mut self, link: Link) {
        let node = &self.nodes[link as usize];
        let children = [node.left, node.right].into_iter().filter(|l| *l != NIL);
        let ends = children.map(|l| &self.nodes[l as usize].end_max).chain([&node.end]);
        let end_max = ends.max().expect("the node's own").clone();
        self.nodes[link as usize].end_max = end_max;
    }
}

/// Where a range ends; `None` for a single key.
fn end_of(range: &KeyRange) -> Option<End> {
    match &range.end {
        RangeEnd::Single => None,
        RangeEnd::Unbounded => Some(End::Unbounded),
        RangeEnd::Before(end) => Some(End::Before(end.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..4, 0..4).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn finds_what_brute_force_finds(
            inserts in prop::collection::vec((key(), key()), 0..80),
            removals in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            probes in prop::collection::vec(key(), 10),
        ) {
            let mut index = Index::default();
            let mut all: Vec<(KeyRange, usize)> = Vec::new();
            for (group, (start, end)) in inserts.into_iter().enumerate() {
                let range = KeyRange::from_wire(start, end);
                index.insert(&range, group);
                all.push((range, group));
            }
            for removal in removals {
                if !all.is_empty() {
                    let (range, group) = all.swap_remove(removal.index(all.len()));
                    index.remove(&range, group);
                }
            }
            for probe in probes {
                let mut found = Vec::new();
                index.matches(&probe, &mut found);
                found.sort_unstable();
                let mut expected: Vec<usize> =
                    all.iter().filter(|(range, _)| range.contains(&probe)).map(|(_, group)| *group).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn many_ranges_are_left_out_of_a_search() {
        let mut index = Index::default();
        let name = |n: u32| Bytes::from(format!("key/{n:06}"));
        for n in 0..100_000 {
            index.insert(&KeyRange::from_wire(name(n), name(n + 1)), n);
        }
        let mut found = Vec::new();
        for n in (0..100_000).step_by(1000) {
            found.clear();
            index.matches(&name(n), &mut found);
            assert_eq!(found, [n]);
        }
        for n in 0..100_000 {
            index.remove(&KeyRange::from_wire(name(n), name(n + 1)), n);
        }
        assert_eq!((index.root, index.free.len()), (NIL, 100_000));
    }
}
