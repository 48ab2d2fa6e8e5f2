/// A date and time of day of the proleptic Gregorian calendar, as a clock chip's registers show it.
struct CalendarDate: Hashable, Sendable {
    var year: Int64
    /// 1-12.
    var month: Int64
    /// 1-31.
    var day: Int64
    var hour: Int64
    var minute: Int64
    var second: Int64

    static let secondsPerDay: Int64 = 86_400

    init(year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64) {
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
    }

    /// The date `seconds` after 1970-01-01 00:00. Any value is a date.
    init(secondsSince1970 seconds: Int64) {
        let (days, time) = Self.floorDivide(seconds, Self.secondsPerDay)
        hour = time / 3600
        minute = time / 60 % 60
        second = time % 60
        // Years begin in March here, so that the leap day is a year's last. 719,468 days lead from 0000-03-01 to 1970.
        let (era, dayOfEra) = Self.floorDivide(days &+ 719_468, 146_097)
        let leapDays = dayOfEra / 1460 &- dayOfEra / 36_524 &+ dayOfEra / 146_096
        let yearOfEra = (dayOfEra &- leapDays) / 365
        let dayOfYear = dayOfEra &- (yearOfEra &* 365 &+ yearOfEra / 4 &- yearOfEra / 100)
        // Five months, March to July and again August to December, have 153 days.
        let monthFromMarch = (dayOfYear &* 5 &+ 2) / 153
        day = dayOfYear &- (monthFromMarch &* 153 &+ 2) / 5 &+ 1
        month = monthFromMarch < 10 ? monthFromMarch &+ 3 : monthFromMarch &- 9
        year = era &* 400 &+ yearOfEra &+ (month <= 2 ? 1 : 0)
    }

    /// Seconds since 1970-01-01 00:00. A day past its month's end counts on into the next; a month must be 1-12.
    /// Wraps, rather than traps, for years no chip can name.
    var secondsSince1970: Int64 {
        let shifted = year &- (month <= 2 ? 1 : 0)
        let (era, yearOfEra) = Self.floorDivide(shifted, 400)
        let monthFromMarch = month > 2 ? month &- 3 : month &+ 9
        let dayOfYear = (monthFromMarch &* 153 &+ 2) / 5 &+ day &- 1
        let dayOfEra = yearOfEra &* 365 &+ yearOfEra / 4 &- yearOfEra / 100 &+ dayOfYear
        let days = era &* 146_097 &+ dayOfEra &- 719_468
        return days &* Self.secondsPerDay &+ hour &* 3600 &+ minute &* 60 &+ second
    }

    /// 0 Sunday to 6 Saturday, for the day that `seconds` is in. 1970-01-01 was a Thursday.
    static func weekday(secondsSince1970 seconds: Int64) -> Int64 {
        floorDivide(floorDivide(seconds, secondsPerDay).quotient &+ 4, 7).remainder
    }

    /// Division that rounds down, so that the remainder is never negative. The divisor is one of ours, above 0.
    static func floorDivide(_ value: Int64, _ divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient &- 1, remainder &+ divisor) : (quotient, remainder)
    }
}
