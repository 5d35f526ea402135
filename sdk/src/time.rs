//! Times in the format of clients.

/// ISO 8601 in UTC with milliseconds, as in `2026-11-20T08:42:38.000Z`, of epoch milliseconds.
#[must_use]
pub fn iso8601(epoch_ms: u64) -> String {
    let (days, of_day) = (epoch_ms / 86_400_000, epoch_ms % 86_400_000);
    // Days to a date by Howard Hinnant's `civil_from_days`: eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::iso8601;

    #[test]
    fn iso8601_handles_leap_days_and_year_ends() {
        for (epoch_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_795_164_158_042, "2026-11-20T08:42:38.042Z"),
        ] {
            assert_eq!(iso8601(epoch_ms), text);
        }
    }
}
