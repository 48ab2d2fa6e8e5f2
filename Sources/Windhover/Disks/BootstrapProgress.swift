/// Reads what mmdebstrap writes to standard error with `--verbose`: its own lines, and those of apt and dpkg that it runs twice,
/// for the essential packages and for the rest.
///
/// Pure: bytes in, cut anywhere, the step and how far the whole is. Lines that make no sense are passed over; a line without
/// an end does not grow past a kilobyte.
struct BootstrapProgress {
    private(set) var step = FetchProgress.Step.lists
    /// From 0 to 1; never goes back.
    private(set) var fraction = 0.0
    /// The first thing that apt, dpkg or mmdebstrap complained about.
    private(set) var complaint: String?
    /// All packages installed so far.
    private(set) var packages = 0

    private var line: [UInt8] = []
    /// Of the part that is being done: where it begins in the whole, where it ends, and how many lines tell of it.
    private var part = (start: 0.0, end: 0.05, lines: 1)
    private var seen = 0
    /// What the last apt is about to install.
    private var planned = 1

    init() {}

    mutating func feed(_ bytes: [UInt8]) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") {
                take(String(decoding: line, as: UTF8.self))
                line.removeAll(keepingCapacity: true)
            } else if line.count < 1024 {
                line.append(byte)
            }
        }
    }

    private mutating func take(_ line: String) {
        if line.hasPrefix("I: ") {
            switch line.dropFirst(3) {
            case "downloading packages with apt...": begin(.download, 0.05, 0.3, lines: 1)
            case "extracting archives...": begin(.unpack, 0.3, 0.4, lines: 1)
            // Each is unpacked, then set up.
            case "installing essential packages...": begin(.install, 0.4, 0.65, lines: planned * 2)
            case "installing remaining packages inside the chroot...": begin(.install, 0.65, 0.97, lines: 1)
            case "cleaning package lists and apt cache...": begin(.install, 0.97, 1, lines: 1)
            case "done": fraction = 1
            default: break
            }
        } else if line.hasPrefix("E: "), complaint == nil {
            complaint = line
        } else if line.hasPrefix("Setting up ") || line.hasPrefix("Unpacking ") {
            if line.hasPrefix("S") { packages += 1 }
            advance()
        } else if line.hasPrefix("Get:") {
            advance()
        } else if let count = Self.planned(in: line) {
            planned = max(1, count)
            // The first run only downloads; the second does everything in one go.
            part.lines = step == .install ? planned * 3 : planned
            seen = 0
        }
    }

    private mutating func begin(_ step: FetchProgress.Step, _ start: Double, _ end: Double, lines: Int) {
        self.step = step
        part = (start, end, lines)
        seen = 0
        fraction = max(fraction, start)
    }

    private mutating func advance() {
        guard step != .lists else { return }
        seen += 1
        let done = min(1, Double(seen) / Double(part.lines))
        fraction = max(fraction, part.start + (part.end - part.start) * done)
    }

    /// `0 upgraded, 89 newly installed, 0 to remove and 0 not upgraded.`
    private static func planned(in line: String) -> Int? {
        guard line.contains(" upgraded, "), let end = line.firstRange(of: " newly installed") else { return nil }
        return line[..<end.lowerBound].split(separator: " ").last.flatMap { Int($0) }.map { min($0, 1 << 20) }
    }
}
