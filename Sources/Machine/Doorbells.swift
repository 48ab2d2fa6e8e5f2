internal import Synchronization
internal import VMCore

/// The doorbells of one machine's devices that its engine rings without leaving the guest: an eventfd each, watched by the event
/// loop. Where the engine has no such thing there are none, and the writes come over the bus.
final class Doorbells: Sendable {
    private struct Entry {
        var doorbell: Doorbell
        /// Held by its watcher, too: a guest takes its doorbells away at any moment, also while the event loop answers one, and the
        /// number must not be another descriptor's by then.
        var event: WakeupEvent
        var token: UInt64
    }

    private let engine: any Engine
    private let events: any EventService
    private let entries = Mutex<[Entry]>([])

    init(engine: any Engine, events: any EventService) {
        self.engine = engine
        self.events = events
    }

    /// - Parameter handler: called on the event loop's thread, once for any number of writes.
    /// - Returns: whether the engine rings it. A host without descriptors left is no reason to stop: the bus does it.
    @discardableResult
    func add(_ doorbell: Doorbell, _ handler: @escaping @Sendable () -> Void) -> Bool {
        guard let event = WakeupEvent(), engine.attach(doorbell, to: event.descriptor) else { return false }
        let token = events.watch(event.descriptor, for: .readable) { _ in
            event.clear()
            handler()
        }
        guard let token else {
            engine.detach(doorbell, from: event.descriptor)
            return false
        }
        entries.withLock { $0.append(Entry(doorbell: doorbell, event: event, token: token)) }
        return true
    }

    /// Takes away those that `isGone` says; all of them where it is left out.
    func remove(where isGone: (Doorbell) -> Bool = { _ in true }) {
        let gone = entries.withLock { entries in
            defer { entries.removeAll { isGone($0.doorbell) } }
            return entries.filter { isGone($0.doorbell) }
        }
        for entry in gone {
            engine.detach(entry.doorbell, from: entry.event.descriptor)
            events.unwatch(entry.event.descriptor, token: entry.token)
        }
    }

    deinit { remove() }
}
