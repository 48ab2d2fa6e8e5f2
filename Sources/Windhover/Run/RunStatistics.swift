internal import FoundationEssentials
internal import Glibc
internal import Machine
internal import VMCore

/// What `--stats` writes: one JSON object.
struct RunStatistics: Encodable {
    struct Exits: Encodable {
        var portRead: UInt64
        var portWrite: UInt64
        var mmioRead: UInt64
        var mmioWrite: UInt64
        var halt: UInt64
        var interruptWindow: UInt64
        var endOfInterrupt: UInt64
        var msr: UInt64
        var kick: UInt64
        var other: UInt64
        var total: UInt64

        init(_ counts: ExitStatistics) {
            portRead = counts.portReads
            portWrite = counts.portWrites
            mmioRead = counts.memoryReads
            mmioWrite = counts.memoryWrites
            halt = counts.halts
            interruptWindow = counts.interruptWindows
            endOfInterrupt = counts.endOfInterrupts
            msr = counts.msrs
            kick = counts.kicks
            other = counts.other
            let parts = [portRead, portWrite, mmioRead, mmioWrite, halt, interruptWindow, endOfInterrupt, msr, kick, other]
            total = parts.reduce(0, &+)
        }
    }

    /// One virtio device's counts.
    struct Device: Encodable {
        var kind: String
        var counts: [String: UInt64]
    }

    var engine: String
    /// Why that engine.
    var engineReason: String
    /// How it ended: a word.
    var outcome: String
    var exitStatus: Int32
    /// From the start of the process to the first instruction of the first life.
    var microsecondsToFirstInstruction: UInt64
    /// The same moment on the host's CLOCK_MONOTONIC, for a harness with its own start.
    var firstInstructionNanoseconds: UInt64
    var wallSeconds: Double
    /// Lives: one more than reboots.
    var boots: Int
    var exits: Exits
    /// 0 on engines that do not count.
    var instructions: UInt64
    var rescues: UInt64
    /// Of the last life, in the guest's order.
    var devices: [Device]
    var residentKiBOutsideGuestMemory: UInt64

    /// The object and a line feed.
    var encoded: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        // Plain numbers and words: there is nothing in it that JSON could not say.
        return ((try? encoder.encode(self)).map { [UInt8]($0) } ?? []) + [UInt8(ascii: "\n")]
    }

    /// Resident KiB of this process but for the guest's RAM.
    ///
    /// From /proc/self/smaps; 0 where that cannot be read. Complexity: the kernel walks every page.
    static func residentOutside(_ memory: GuestMemory) -> UInt64 {
        let ranges = memory.regions.map { region in
            unsafe (UInt64(UInt(bitPattern: region.host)), region.count)
        }
        let descriptor = unsafe open("/proc/self/smaps", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return 0 }
        defer { close(descriptor) }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = unsafe read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            text.append(contentsOf: buffer.prefix(count))
        }
        var total: UInt64 = 0
        var isGuest = false
        for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
            if let dash = line.firstIndex(of: "-"), let start = UInt64(line[..<dash], radix: 16) {
                isGuest = ranges.contains { start >= $0.0 && start - $0.0 < $0.1 }
            } else if !isGuest, line.hasPrefix("Rss:") {
                total &+= UInt64(line.split(separator: " ").dropFirst().first ?? "0") ?? 0
            }
        }
        return total
    }
}

/// The statistics file cannot be written.
struct StatisticsError: ReportableError, Hashable {
    let path: String
    let errno: Int32

    var exitStatus: ExitStatus { RunError.status(ofFile: errno) }

    var description: String {
        "the statistics cannot be written to '\(path)': \(HostError.message(errno)); name another file with --stats"
    }
}
