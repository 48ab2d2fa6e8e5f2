/// Exit statuses as a shell has them: a program's own, or 128 plus the signal that ended it.
enum ShellStatus {
    /// Of what the signal ended.
    static func signal(_ number: Int32) -> Int32 { 128 &+ number }

    /// Of a child.
    /// - Parameter ending: what `waitpid` says of one that has ended. Source: wait(2).
    static func child(_ ending: Int32) -> Int32 {
        let signal = ending & 0x7F
        return signal == 0 ? ending >> 8 & 0xFF : Self.signal(signal)
    }

    /// The signal that a status may stand for; nil for one that can only be a program's own.
    static func signal(of status: Int32) -> Int32? { 129...192 ~= status ? status &- 128 : nil }
}
