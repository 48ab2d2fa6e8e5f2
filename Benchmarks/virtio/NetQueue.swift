// What a frame costs the network device: 1500-byte frames through the queues to a link that takes everything, and from one that
// has a supply of them.
//
//   netqueue FRAMES?
//
// One thread is driver and event loop in turns; the driver does no more than a ring asks for. Prints frames a second of one
// core each way, in both layouts.
import Glibc
import Virtio
import VMCore

/// The thread's own time, so that others on the machine do not count.
private final class Steady: MonotonicClock {
    func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// Turns are taken by hand, and nothing is ever waited for.
private final class Turns: EventService, @unchecked Sendable {
    final class Item: Work, Alarm, @unchecked Sendable {
        let handler: @Sendable () -> Void
        var isDue = false
        init(_ handler: @escaping @Sendable () -> Void) { self.handler = handler }
        func schedule() { isDue = true }
        func set(deadline: UInt64?) {}
    }
    var items: [Item] = []

    func run() {
        for item in items {
            while item.isDue {
                item.isDue = false
                item.handler()
            }
        }
    }

    func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work {
        let item = Item(handler)
        items.append(item)
        return item
    }
    func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm { Item(handler) }
    func watch(
        _ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void
    ) -> UInt64? { nil }
    func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {}
    func unwatch(_ descriptor: Int32, token: UInt64) {}
}

private final class Wire: InterruptLine {
    func setLevel(_ isHigh: Bool) {}
}

/// A queue's driver: one buffer a descriptor, all of them made available again as soon as they are used.
private struct Ring {
    static let size = 256
    let index: UInt16
    let isPacked: Bool
    let base: UInt64
    let memory: UnsafeMutableRawPointer
    let buffers: UInt64
    let length: UInt32
    let isWritable: Bool
    var used: UInt16 = 0
    var position = 0
    var wraps = true

    var layout: (UInt64, UInt64, UInt64) { (base, base + 0x1000, base + 0x2000) }
    func buffer(_ slot: Int) -> UInt64 { buffers + UInt64(slot) * 2048 }

    func write(_ slot: Int, third: UInt16, fourth: UInt16) {
        let place = memory + Int(base) + slot * 16
        place.storeBytes(of: buffer(slot), as: UInt64.self)
        place.storeBytes(of: UInt64(length) | UInt64(third) << 32 | UInt64(fourth) << 48, toByteOffset: 8, as: UInt64.self)
    }

    var flags: UInt16 { isWritable ? 2 : 0 }

    func fill() {
        for slot in 0..<Self.size {
            if isPacked {
                write(slot, third: UInt16(slot), fourth: flags | 1 << 7)
            } else {
                write(slot, third: flags, fourth: 0)
                (memory + Int(base) + 0x1004 + slot * 2).storeBytes(of: UInt16(slot), as: UInt16.self)
            }
        }
        if !isPacked { (memory + Int(base) + 0x1002).storeBytes(of: UInt16(Self.size), as: UInt16.self) }
    }

    /// Makes available again what the device has used.
    mutating func recycle() -> Int {
        var count = 0
        if !isPacked {
            let seen = (memory + Int(base) + 0x2002).load(as: UInt16.self)
            count = Int(seen &- used)
            used = seen
            // Each descriptor keeps its place, since the device goes through them in order.
            (memory + Int(base) + 0x1002).storeBytes(of: seen &+ UInt16(Self.size), as: UInt16.self)
            return count
        }
        while count < Self.size {
            let place = memory + Int(base) + position * 16
            let bits = (place + 14).load(as: UInt16.self)
            guard (bits & 1 << 7 != 0) == wraps, (bits & 1 << 15 != 0) == wraps else { break }
            write(position, third: UInt16(position), fourth: flags | (wraps ? 1 << 15 : 1 << 7))
            count += 1
            position += 1
            if position == Self.size {
                position = 0
                wraps.toggle()
            }
        }
        return count
    }
}

/// - Returns: frames a second.
private func measure(frames: Int, sends: Bool, isPacked: Bool) throws -> Double {
    let memory = try GuestMemory(size: 16 << 20)
    let (events, clock) = (Turns(), Steady())
    let payload = [UInt8](repeating: 0x55, count: 1500)
    let link = sends ? NullBackend() : NullBackend(frame: payload, supply: UInt64(frames))
    let device = NetworkDevice(links: [link], address: .random(), events: events, clock: clock)
    let transport = MMIOTransport(device: device, memory: memory, line: Wire())
    func write(_ offset: UInt64, _ value: UInt64) { transport.write(offset: offset, width: .long, value: value & 0xFFFF_FFFF) }

    write(0x70, 3)
    let wanted: FeatureSet = [.version1, .eventIndex, .netMergeableBuffers]
    let features = isPacked ? wanted.union(.packedRing) : wanted
    for window in 0..<2 as Range<UInt64> {
        write(0x24, window)
        write(0x20, features.rawValue >> (window * 32))
    }
    write(0x70, 11)
    let host = memory.regions[0].host
    var rings: [Ring] = []
    for index in 0..<2 as Range<UInt64> {
        let ring = Ring(
            index: UInt16(index), isPacked: isPacked, base: 0x10_0000 + index * 0x1_0000, memory: host,
            buffers: 0x20_0000 + index * 0x10_0000, length: index == 0 ? 2048 : 1512, isWritable: index == 0)
        write(0x30, index)
        write(0x38, UInt64(Ring.size))
        let (descriptors, driver, device) = ring.layout
        write(0x80, descriptors)
        write(0x90, driver)
        write(0xA0, device)
        write(0x44, 1)
        rings.append(ring)
    }
    var ring = rings[sends ? 1 : 0]
    ring.fill()
    write(0x70, 15)

    var done = 0
    let start = clock.now()
    while done < frames {
        transport.registers.notify(queue: UInt32(ring.index))
        events.run()
        let count = ring.recycle()
        guard count > 0 else { fatalError("the device stands still after \(done) frames") }
        done += count
    }
    let seconds = Double(clock.now() - start) / 1e9
    transport.registers.reset()
    return Double(done) / seconds
}

@main struct NetQueue {
    static func main() throws {
        let words = CommandLine.arguments
        guard let frames = words.count > 1 ? Int(words[1]) : 5_000_000, frames > 0 else {
            print("usage: netqueue FRAMES?")
            exit(64)
        }
        var isMet = true
        for isPacked in [false, true] {
            for sends in [true, false] {
                let rate = try measure(frames: frames, sends: sends, isPacked: isPacked)
                let millions = (rate / 10_000).rounded() / 100
                isMet = isMet && rate >= 2_000_000
                print("\(isPacked ? "packed" : "split") \(sends ? "transmit" : "receive"): \(millions) million frames a second, bar 2")
            }
        }
        exit(isMet ? 0 : 1)
    }
}
