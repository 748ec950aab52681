//! ODBC's dates, year by month by day, and Arrow's, days since 1970, in the Gregorian calendar.

use std::ops::RangeInclusive;

use odbc_api::sys::{Date, Timestamp};

/// The years of SQL: what drivers give and take beyond them is not what was meant.
const YEARS: RangeInclusive<i16> = 1..=9999;
const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Days from 1970-01-01 to `date`; none if there is no such day.
pub(super) fn days(date: &Date) -> Option<i32> {
    days_of(date.year, date.month, date.day)
}

/// Ticks of `1 / per_second` seconds since 1970; none if there is no such time, or Arrow cannot
/// hold it.
pub(super) fn ticks(time: &Timestamp, per_second: i64) -> Option<i64> {
    if time.hour > 23 || time.minute > 59 || time.second > 60 {
        return None;
    }
    let days = i64::from(days_of(time.year, time.month, time.day)?);
    let of_day = (i64::from(time.hour) * 60 + i64::from(time.minute)) * 60 + i64::from(time.second);
    let fraction = i64::from(time.fraction) / (NANOS_PER_SECOND / per_second);
    (days * SECONDS_PER_DAY + of_day)
        .checked_mul(per_second)?
        .checked_add(fraction)
}

/// The day `days` after 1970-01-01; none outside [`YEARS`].
pub(super) fn date(days: i32) -> Option<Date> {
    // Years begin in March, so that the leap day is the last; an era is 400 years, 146,097 days.
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Some(Date {
        year: i16::try_from(year).ok().filter(|y| YEARS.contains(y))?,
        month: u16::try_from(month).ok()?,
        day: u16::try_from(day).ok()?,
    })
}

/// The time that [`ticks`] takes apart.
pub(super) fn timestamp(ticks: i64, per_second: i64) -> Option<Timestamp> {
    let seconds = ticks.div_euclid(per_second);
    let fraction = ticks.rem_euclid(per_second) * (NANOS_PER_SECOND / per_second);
    let Date { year, month, day } = date(i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).ok()?)?;
    let of_day = u32::try_from(seconds.rem_euclid(SECONDS_PER_DAY)).ok()?;
    let part = |value: u32| u16::try_from(value).ok();
    Some(Timestamp {
        year,
        month,
        day,
        hour: part(of_day / 3600)?,
        minute: part(of_day / 60 % 60)?,
        second: part(of_day % 60)?,
        fraction: u32::try_from(fraction).ok()?,
    })
}

fn days_of(year: i16, month: u16, day: u16) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !YEARS.contains(&year) || !(1..=last).contains(&day) {
        return None;
    }
    let (month, day) = (i32::from(month), i32::from(day));
    let year = i32::from(year) - i32::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    Some(era * 146_097 + of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_thousand_years_is_counted_once() {
        let start = days_of(1599, 1, 1).unwrap();
        for day in start..start + 366_000 {
            let date = date(day).unwrap();
            assert_eq!(days(&date), Some(day), "{date:?}");
        }
        assert_eq!(
            date(0).unwrap(),
            Date {
                year: 1970,
                month: 1,
                day: 1
            }
        );
        assert_eq!(
            days(&Date {
                year: 2000,
                month: 2,
                day: 29
            }),
            Some(11_016)
        );
        for year in [-44, 0, 10_000] {
            assert_eq!(days_of(year, 3, 15), None);
        }
        let (first, last) = (days_of(1, 1, 1).unwrap(), days_of(9999, 12, 31).unwrap());
        assert!(date(first).is_some() && date(first - 1).is_none());
        assert!(date(last).is_some() && date(last + 1).is_none());
        assert_eq!(
            days(&Date {
                year: 1900,
                month: 2,
                day: 29
            }),
            None
        );
        assert_eq!(
            days(&Date {
                year: 2026,
                month: 13,
                day: 1
            }),
            None
        );
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        for (ticks_, per_second) in [
            (-1, 1_000_000),
            (1_769_854_272_123_456, 1_000_000),
            (-1, 1_000_000_000),
        ] {
            let time = timestamp(ticks_, per_second).unwrap();
            assert_eq!(ticks(&time, per_second), Some(ticks_), "{time:?}");
        }
        let time = timestamp(-1, 1_000_000).unwrap();
        assert_eq!(
            (time.year, time.second, time.fraction),
            (1969, 59, 999_999_000)
        );
        let far = Timestamp {
            year: 9999,
            month: 12,
            day: 31,
            ..Timestamp::default()
        };
        assert!(ticks(&far, 1_000_000).is_some());
        assert_eq!(ticks(&far, 1_000_000_000), None);
    }
}
