//! From a command line that was read to a checked configuration. Called by `main` and by `kvist config --check`.

use super::args::Settings;
use super::{Config, Error, Note};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Sets `--config-file`. It is looked at before the others, since a file puts them out of force.
const FILE_VARIABLE: &str = "ETCD_CONFIG_FILE";

impl Settings {
    /// Adds the environment, or takes the file instead, and checks everything that does not depend on whether there is
    /// data already. The notes are to be told before the error.
    pub fn configure(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Vec<Note>, Result<Config, Error>) {
        if let Some(word) = &self.positional {
            return (Vec::new(), Err(Error::Positional(word.clone())));
        }
        let variables: Vec<_> = variables.into_iter().collect();
        if let Some(path) = self.config_file(&variables) {
            return match Settings::from_file(&path) {
                Ok(settings) => settings.verify_after(vec![Note::FileLoaded(path)]),
                Err(error) => (Vec::new(), Err(error)),
            };
        }
        let (notes, environment) = self.add_environment(variables);
        match environment {
            Ok(()) => self.verify_after(notes),
            Err(error) => (notes, Err(error)),
        }
    }

    /// Checks the settings of a file.
    pub fn configure_file(path: &Path) -> (Vec<Note>, Result<Config, Error>) {
        match Settings::from_file(path) {
            Ok(settings) => settings.verify_after(Vec::new()),
            Err(error) => (Vec::new(), Err(error)),
        }
    }

    fn config_file(&self, variables: &[(OsString, OsString)]) -> Option<PathBuf> {
        let flag = Some(&self.draft.config_file).filter(|path| !path.is_empty()).map(PathBuf::from);
        flag.or_else(|| {
            let (_, path) = variables.iter().find(|(name, _)| name == FILE_VARIABLE)?;
            Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
        })
    }

    fn verify_after(mut self, mut notes: Vec<Note>) -> (Vec<Note>, Result<Config, Error>) {
        notes.append(&mut self.notes);
        let (more, config) = self.verify();
        notes.extend(more);
        (notes, config)
    }
}
