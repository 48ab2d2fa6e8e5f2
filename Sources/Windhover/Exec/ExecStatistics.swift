internal import FoundationEssentials

/// What `hover exec --stats` writes: one JSON object.
struct ExecStatistics: Encodable {
    var engine: String
    /// Why that engine.
    var engineReason: String
    /// How it ended, a word: `exited`, `signal`, `out-of-memory`, `timeout`, `panic`, `died`, `not-started`, `interrupted`.
    var outcome: String
    var exitStatus: Int32
    /// From the run's start until the guest's root was there, and until the command ran; absent where it did not come to that.
    var secondsToReady: Double?
    var secondsToStart: Double?
    var wallSeconds: Double
    var exits: RunStatistics.Exits
    /// 0 on engines that do not count.
    var instructions: UInt64
    /// In the guest's order.
    var devices: [RunStatistics.Device]
    var residentKiBOutsideGuestMemory: UInt64

    /// The object and a line feed.
    var encoded: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        return ((try? encoder.encode(self)).map { [UInt8]($0) } ?? []) + [UInt8(ascii: "\n")]
    }
}
