//! The parameters in the query of calls about plugins.

use crate::model::{ErrorCode, Failure};

/// The longest shadow, in seconds.
pub(super) const MAX_SHADOW_SECONDS: u64 = 7 * 24 * 3600;

/// The latest time, in milliseconds: the largest integer that all JSON parsers know.
pub(super) const MAX_AT: u64 = (1 << 53) - 1;

/// A parameter that a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    LoseWrites,
    Last,
    To,
    Seconds,
    PromoteIfEqual,
    Percent,
    At,
}

/// The values of the parameters of a call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parameters {
    /// Whether states may be lost.
    pub(super) lose_writes: bool,
    /// The number of last events that the call is about.
    pub(super) last: Option<u64>,
    /// The generation to go back to.
    pub(super) to: Option<u64>,
    /// How long a candidate stays in the shadow.
    pub(super) seconds: Option<u64>,
    /// Whether it is promoted then, if it makes the same of all events.
    pub(super) promote_if_equal: bool,
    /// The share of scopes that a canary gets, in thousandths.
    pub(super) per_mille: Option<u32>,
    /// A time: milliseconds since 1970, or, where it is negative, before now.
    pub(super) at: Option<i64>,
}

impl Parameter {
    fn name(self) -> &'static str {
        match self {
            Self::LoseWrites => "loseWrites",
            Self::Last => "last",
            Self::To => "to",
            Self::Seconds => "seconds",
            Self::PromoteIfEqual => "promoteIfEqual",
            Self::Percent => "percent",
            Self::At => "at",
        }
    }
}

impl Parameters {
    /// Reads a query, in which a call takes the parameters `known`.
    ///
    /// # Errors
    /// If there is another parameter, or a value is none of its parameter.
    pub(super) fn of(query: Option<&str>, known: &[Parameter]) -> Result<Self, Failure> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some(parameter) = known.iter().find(|known| known.name() == name) else {
                let names: Vec<_> = known.iter().map(|known| known.name()).collect();
                let message = format!("there is no parameter {name:?} here: there is {}", names.join(", "));
                return Err(Failure::new(ErrorCode::BadRequest, message));
            };
            parameters.set(*parameter, &value).map_err(|wanted| {
                Failure::new(ErrorCode::BadRequest, format!("{name} is {value:?}, and must be {wanted}"))
            })?;
        }
        Ok(parameters)
    }

    /// # Errors
    /// With what the value must be.
    fn set(&mut self, parameter: Parameter, value: &str) -> Result<(), String> {
        let truth = || value.parse::<bool>().map_err(|_| "true or false".to_owned());
        let number = |of: &str, most: u64| {
            let number = value.parse::<u64>().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("a number of {of}, 1 to {most}"))
        };
        match parameter {
            Parameter::LoseWrites => self.lose_writes = truth()?,
            Parameter::PromoteIfEqual => self.promote_if_equal = truth()?,
            Parameter::Last => self.last = Some(number("events", u32::MAX.into())?),
            Parameter::To => self.to = Some(number("a generation", u32::MAX.into())?),
            Parameter::Seconds => self.seconds = Some(number("seconds", MAX_SHADOW_SECONDS)?),
            Parameter::At => {
                let at = value.parse::<i64>().ok().filter(|at| at.unsigned_abs() <= MAX_AT);
                self.at = Some(at.ok_or("milliseconds since 1970, or negative, before now")?);
            }
            Parameter::Percent => {
                let percent = value.parse::<f64>().ok().filter(|percent| (0.1..=100.0).contains(percent));
                let percent = percent.ok_or("a percentage, 0.1 to 100")?;
                self.per_mille = Some((percent * 10.0).round() as u32);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_read_or_refused_with_what_it_must_be() {
        let all = [Parameter::LoseWrites, Parameter::Seconds, Parameter::Percent, Parameter::To];
        let read = Parameters::of(Some("loseWrites=true&percent=2.5&to=7"), &all).unwrap();
        assert_eq!((read.lose_writes, read.per_mille, read.to), (true, Some(25), Some(7)));
        assert_eq!(Parameters::of(None, &all).unwrap(), Parameters::default());
        for (query, part) in [
            ("last=1", "there is loseWrites, seconds, percent, to"),
            ("loseWrites=yes", "must be true or false"),
            ("to=0", "must be a number of a generation, 1 to 4294967295"),
            ("seconds=0", "must be a number of seconds, 1 to 604800"),
            ("percent=0", "must be a percentage, 0.1 to 100"),
            ("percent=101", "must be a percentage, 0.1 to 100"),
            ("percent=NaN", "must be a percentage, 0.1 to 100"),
        ] {
            let refusal = Parameters::of(Some(query), &all).unwrap_err();
            assert!(refusal.message.contains(part), "{query}: {}", refusal.message);
        }
    }
}
