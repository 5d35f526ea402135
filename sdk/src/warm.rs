//! State that a warm instance keeps between events: the parsed settings and scope templates of a feature. Both are
//! determined by the input, so keeping them changes no outcome.

use std::fmt;

use crate::locate::locate;
use crate::template::Template;
use crate::{Failure, Feature};

/// One feature's parsed settings and templates.
pub struct Warm<F: Feature> {
    settings_text: String,
    pub(crate) settings: F::Settings,
    pub(crate) templates: Vec<Template>,
}

impl<F: Feature> fmt::Debug for Warm<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm").field("settings", &self.settings_text).finish_non_exhaustive()
    }
}

impl<F: Feature> Warm<F> {
    /// Returns `kept` if it was parsed from these settings; otherwise parses the settings into it.
    pub(crate) fn of_settings<'a>(kept: &'a mut Option<Self>, settings_text: &str) -> Result<&'a Self, Failure> {
        match kept.take() {
            Some(warm) if warm.settings_text == settings_text => Ok(kept.insert(warm)),
            _ => Ok(kept.insert(Self::new(settings_text)?)),
        }
    }

    fn new(settings_text: &str) -> Result<Self, Failure> {
        let settings = serde_json::from_str(settings_text).map_err(|error| {
            let (field, complaint) = locate(settings_text, &error);
            let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
            Failure::feature_unavailable(format!("settings: {field}{complaint}"))
        })?;
        Ok(Self {
            settings_text: settings_text.to_owned(),
            settings,
            templates: F::describe().scopes.iter().map(|scope| Template::new(&scope.template)).collect(),
        })
    }
}
