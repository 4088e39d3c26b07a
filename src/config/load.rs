//! From a command line that was read to a checked configuration. Called by `main` and by `kvist config --check`.

use super::args::Settings;
use super::{Config, Error, Note};
use std::ffi::OsString;

impl Settings {
    /// Adds the environment and checks everything that does not depend on whether there is data already. The notes
    /// are to be told before the error.
    pub fn configure(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Vec<Note>, Result<Config, Error>) {
        let (mut notes, environment) = self.add_environment(variables);
        let config = environment.and_then(|()| {
            let (more, config) = self.verify();
            notes.extend(more);
            config
        });
        (notes, config)
    }
}
