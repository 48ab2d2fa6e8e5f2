/// Reads what apt writes to `APT::Status-Fd`: lines such as `dlstatus:3:42.5000:Retrieving file 3 of 5`.
///
/// Pure: bytes in, cut anywhere, the latest percentage out. Lines of other kinds, and ones that make no sense, are
/// passed over; a line without an end does not grow past a kilobyte.
struct AptProgress {
    /// From 0 to 1; never goes back.
    private(set) var fraction = 0.0
    private var line: [UInt8] = []

    init() {}

    mutating func feed(_ bytes: [UInt8]) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                take(line)
                line.removeAll(keepingCapacity: true)
            } else if line.count < 1024 {
                line.append(byte)
            }
        }
    }

    private mutating func take(_ line: [UInt8]) {
        let fields = String(decoding: line, as: UTF8.self).split(
            separator: ":", maxSplits: 3, omittingEmptySubsequences: false)
        guard fields.count >= 3, fields[0] == "dlstatus", let percent = Double(fields[2]), percent.isFinite else {
            return
        }
        fraction = max(fraction, min(1, max(0, percent / 100)))
    }
}
