import Glibc
import Synchronization
import VMCore
import Virtio

// How many 4 KiB reads one queue of a block device takes through in a second, on one core, with nothing behind it: what the
// rings, the device and its bookkeeping cost. See README.md.

/// Runs the device's work on this thread, one turn after the other. Nothing is ever waited for.
final class Turns: EventService, MonotonicClock, @unchecked Sendable {
    private final class Item: Work, @unchecked Sendable {
        let handler: @Sendable () -> Void
        var isDue = false
        init(_ handler: @escaping @Sendable () -> Void) { self.handler = handler }
        func schedule() { isDue = true }
    }
    private final class Never: Alarm { func set(deadline: UInt64?) {} }

    private var items: [Item] = []

    func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work {
        items.append(Item(handler))
        return items[items.count - 1]
    }
    func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm { Never() }
    func watch(_ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void) -> UInt64?
    { nil }
    func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {}
    func unwatch(_ descriptor: Int32, token: UInt64) {}

    /// The processor time of this thread: what else the host has to do does not count.
    func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    func run() {
        var isBusy = true
        while isBusy {
            isBusy = false
            for item in items where item.isDue {
                item.isDue = false
                isBusy = true
                item.handler()
            }
        }
    }
}

final class Wire: InterruptLine {
    let raised = Atomic<Int>(0)
    func setLevel(_ isHigh: Bool) { if isHigh { raised.wrappingAdd(1, ordering: .relaxed) } }
    func pulse() {}
}

/// A driver that makes the same requests again and again, by writing two indices: the device's share is what is measured.
struct Filler {
    static let size = 256
    static let descriptors: UInt64 = 0x10_0000, available: UInt64 = 0x11_0000, used: UInt64 = 0x12_0000
    static let headers: UInt64 = 0x20_0000, statuses: UInt64 = 0x21_0000, data: UInt64 = 0x100_0000

    let memory: GuestMemory
    let base: UnsafeMutableRawPointer
    let requests: Int
    /// Ring descriptors of each request.
    private let stride: Int
    private var index: UInt16 = 0

    /// - Parameter indirect: each request is one descriptor with a table of three, as Linux makes them; else three in the ring.
    init(_ memory: GuestMemory, indirect: Bool) {
        self.memory = memory
        base = memory.hostBytes(at: GuestAddress(0), count: 64 << 20)!.baseAddress!
        requests = indirect ? Self.size : Self.size / 3
        stride = indirect ? 1 : 3
        for request in 0..<requests {
            let place = indirect ? Self.headers + 0x10_0000 + UInt64(request) * 48 : Self.descriptors + UInt64(request) * 48
            let first = indirect ? 0 : UInt16(request * 3)
            descriptor(place, Self.headers + UInt64(request) * 16, 16, 1, first + 1)
            descriptor(place + 16, Self.data + UInt64(request) * 4096, 4096, 3, first + 2)
            descriptor(place + 32, Self.statuses + UInt64(request), 1, 2, 0)
            if indirect { descriptor(Self.descriptors + UInt64(request) * 16, place, 48, 4, 0) }
            store(UInt64(0), Self.headers + UInt64(request) * 16)
            store(UInt64(request * 8), Self.headers + UInt64(request) * 16 + 8)
        }
        // Interrupts are not looked at, and not asked for.
        store(UInt16(1), Self.available)
    }

    private func store<Value>(_ value: Value, _ address: UInt64) {
        base.storeBytes(of: value, toByteOffset: Int(address), as: Value.self)
    }

    private func descriptor(_ place: UInt64, _ address: UInt64, _ count: UInt32, _ flags: UInt16, _ next: UInt16) {
        store(address, place)
        store(count, place + 8)
        store(flags, place + 12)
        store(next, place + 14)
    }

    /// Makes `count` requests available, at most `requests`.
    mutating func fill(_ count: Int) {
        for request in 0..<count {
            store(UInt16(request * stride), Self.available + 4 + UInt64(index & UInt16(Self.size - 1)) * 2)
            index &+= 1
        }
        store(index, Self.available + 2)
    }

    var usedIndex: UInt16 { base.load(fromByteOffset: Int(Self.used + 2), as: UInt16.self) }
    var isAllUsed: Bool { usedIndex == index }
    /// Whether every status byte says OK; sets them to something else for the next time.
    func takeStatuses(_ count: Int) -> Bool {
        var bad: UInt8 = 0
        for request in 0..<count {
            bad |= base.load(fromByteOffset: Int(Self.statuses) + request, as: UInt8.self)
            store(UInt8(0xFF), Self.statuses + UInt64(request))
        }
        return bad == 0
    }
}

func measure(_ image: any BlockImage, indirect: Bool, depth: Int, rounds: Int) throws -> Double {
    let turns = Turns()
    let memory = try GuestMemory(size: 64 << 20)
    let device = BlockDevice(image: image, events: turns, clock: turns)
    let transport = MMIOTransport(device: device, memory: memory, line: Wire())
    var filler = Filler(memory, indirect: indirect)
    func write(_ offset: UInt64, _ value: UInt32) { transport.write(offset: offset, width: .long, value: UInt64(value)) }
    for status in [0, 1, 3] as [UInt32] { write(0x70, status) }
    write(0x24, 0)
    write(0x20, 1 << 28 | 1 << 9)
    write(0x24, 1)
    write(0x20, 1)
    write(0x70, 11)
    write(0x30, 0)
    write(0x38, UInt32(Filler.size))
    write(0x80, UInt32(Filler.descriptors))
    write(0x90, UInt32(Filler.available))
    write(0xA0, UInt32(Filler.used))
    write(0x44, 1)
    write(0x70, 15)
    let count = min(depth, filler.requests)
    var best = Double.infinity
    for _ in 0..<5 {
        let start = turns.now()
        for _ in 0..<rounds {
            filler.fill(count)
            transport.write(offset: MMIOTransport.notifyOffset, width: .long, value: 0)
            turns.run()
            guard filler.isAllUsed, filler.takeStatuses(count) else { fatalError("a request did not come back as it should") }
        }
        best = min(best, Double(turns.now() - start) / Double(rounds * count))
    }
    return best
}

/// Exit status 0 where the bar is met: a million a second wherever more than one request is there at a time.
@main struct BlockQueue {
    static func main() throws {
        let bar = 1_000_000.0
        var isMet = true
        for (name, indirect, depth) in [
            ("tables, 128 at once", true, 128), ("tables, 1 at once", true, 1), ("chains, 64 at once", false, 64),
        ] {
            let image = NullImage(capacity: 1 << 30)
            let nanoseconds = try measure(image, indirect: indirect, depth: depth, rounds: 400_000 / depth)
            let rate = 1e9 / nanoseconds
            if depth > 1, rate < bar { isMet = false }
            print("\(name): \(Int(rate)) reads of 4 KiB a second, \(Int(nanoseconds)) ns each")
        }
        exit(isMet ? 0 : 1)
    }
}
