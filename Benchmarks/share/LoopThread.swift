import Glibc
import Synchronization
import VMCore
import Virtio

/// An event loop on a thread of its own, woken through a descriptor as a machine's is. It watches nothing else, and has no alarms.
final class LoopThread: EventService, MonotonicClock, @unchecked Sendable {
    private final class Item: Work {
        private let loop: LoopThread
        let handler: @Sendable () -> Void
        let isDue = Atomic<Bool>(false)

        init(_ loop: LoopThread, _ handler: @escaping @Sendable () -> Void) {
            self.loop = loop
            self.handler = handler
        }

        func schedule() { if !isDue.exchange(true, ordering: .acquiringAndReleasing) { loop.event.signal() } }
    }
    private final class NoAlarm: Alarm { func set(deadline: UInt64?) {} }

    private let event = Event()
    private let items = Mutex<[Item]>([])

    init() {
        var thread = pthread_t()
        let start = Unmanaged.passRetained(self).toOpaque()
        pthread_create(&thread, nil, { argument in
            Unmanaged<LoopThread>.fromOpaque(argument!).takeUnretainedValue().serve()
        }, start)
    }

    private func serve() -> Never {
        while true {
            event.wait()
            for item in items.withLock({ $0 }) where item.isDue.exchange(false, ordering: .acquiringAndReleasing) { item.handler() }
        }
    }

    func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work {
        let item = Item(self, handler)
        items.withLock { $0.append(item) }
        return item
    }
    func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm { NoAlarm() }
    func watch(_ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void) -> UInt64?
    { nil }
    func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {}
    func unwatch(_ descriptor: Int32, token: UInt64) {}
    func now() -> UInt64 { wallClock() }
}

/// What one thread sleeps on until another wakes it.
final class Event: Sendable {
    private let reading: Int32
    private let writing: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { fatalError("no pipe") }
        (reading, writing) = (ends[0], ends[1])
    }

    func signal() {
        var one: UInt8 = 1
        _ = Glibc.write(writing, &one, 1)
    }

    func wait() {
        var bytes: (UInt64, UInt64) = (0, 0)
        _ = Glibc.read(reading, &bytes, 16)
    }
}

/// The interrupt that the notifying thread sleeps for.
final class Wire: InterruptLine {
    private let event = Event()
    func setLevel(_ isHigh: Bool) { if isHigh { event.signal() } }
    func pulse() {}
    func wait() { event.wait() }
}
