//! stand-in
use crate::types::KeyRange;
pub struct Index<G>(Vec<(KeyRange, G)>);
impl<G> Default for Index<G> {
    fn default() -> Self {
        Index(Vec::new())
    }
}
impl<G: Copy + Eq> Index<G> {
    pub fn insert(&mut self, r: &KeyRange, g: G) {
        self.0.push((r.clone(), g));
    }
    pub fn remove(&mut self, r: &KeyRange, g: G) {
        self.0.retain(|x| !(x.0 == *r && x.1 == g));
    }
    pub fn matches(&self, k: &[u8], out: &mut Vec<G>) {
        out.extend(self.0.iter().filter(|x| x.0.contains(k)).map(|x| x.1));
    }
}
