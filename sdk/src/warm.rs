//! State that a warm instance keeps between events: the parsed settings and scope templates of a feature. Both are
//! determined by the input, so keeping them changes no outcome.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::locate::locate;
use crate::template::Template;
use crate::{Failure, Manifest};

/// One feature's parsed settings and templates.
pub struct Warm<S> {
    settings_text: String,
    pub(crate) settings: S,
    pub(crate) templates: Vec<Template>,
}

impl<S> fmt::Debug for Warm<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm").field("settings", &self.settings_text).finish_non_exhaustive()
    }
}

impl<S: DeserializeOwned> Warm<S> {
    /// Returns `kept` if it was parsed from these settings; otherwise parses the settings into it.
    pub(crate) fn of_settings<'a>(
        kept: &'a mut Option<Self>,
        settings_text: &str,
        describe: fn() -> Manifest,
    ) -> Result<&'a Self, Failure> {
        match kept.take() {
            Some(warm) if warm.settings_text == settings_text => Ok(kept.insert(warm)),
            _ => Ok(kept.insert(Self::new(settings_text, describe)?)),
        }
    }

    fn new(settings_text: &str, describe: fn() -> Manifest) -> Result<Self, Failure> {
        let settings = serde_json::from_str(settings_text).map_err(|error| {
            let (field, complaint) = locate(settings_text, &error);
            let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
            Failure::feature_unavailable(format!("settings: {field}{complaint}"))
        })?;
        Ok(Self {
            settings_text: settings_text.to_owned(),
            settings,
            templates: describe().scopes.iter().map(|scope| Template::new(&scope.template)).collect(),
        })
    }
}
