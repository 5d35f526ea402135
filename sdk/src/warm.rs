//! What a warm instance keeps between events: the parsed settings and scope templates of a feature. Both
//! follow from the input alone, so keeping them changes no outcome.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::rc::Rc;

use crate::locate::locate;
use crate::template::Template;
use crate::{Failure, Feature};

/// One feature's parsed settings and templates.
pub(crate) struct Warm<F: Feature> {
    settings_text: String,
    pub(crate) settings: F::Settings,
    pub(crate) templates: Vec<Template>,
}

thread_local! {
    /// One entry in a component; several where native tests run several features.
    static CACHE: RefCell<Vec<(TypeId, Rc<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

impl<F: Feature> Warm<F> {
    /// What belongs to these settings: kept from the last event, or parsed anew where they changed.
    pub(crate) fn get(settings_text: &str) -> Result<Rc<Self>, Failure> {
        let kept = CACHE.with_borrow(|cache| {
            cache
                .iter()
                .find(|(id, _)| *id == TypeId::of::<F>())
                .and_then(|(_, warm)| Rc::clone(warm).downcast::<Self>().ok())
        });
        if let Some(warm) = kept
            && warm.settings_text == settings_text
        {
            return Ok(warm);
        }
        let warm = Rc::new(Self::new(settings_text)?);
        CACHE.with_borrow_mut(|cache| {
            cache.retain(|(id, _)| *id != TypeId::of::<F>());
            cache.push((TypeId::of::<F>(), Rc::clone(&warm) as Rc<dyn Any>));
        });
        Ok(warm)
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
            templates: F::describe().templates().map_err(Failure::internal)?,
        })
    }
}
