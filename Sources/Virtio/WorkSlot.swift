internal import Synchronization
internal import VMCore

/// A device's work on the event loop, connected once the device that does it exists.
final class WorkSlot: Sendable {
    private let work = Mutex<(any Work)?>(nil)

    func connect(_ events: any EventService, _ handler: @escaping @Sendable () -> Void) {
        let made = events.makeWork(handler)
        work.withLock { $0 = made }
    }

    func schedule() { work.withLock { $0?.schedule() } }

    /// From now on nothing is scheduled: for a device that goes while threads of its own may still be at work.
    func disconnect() { work.withLock { $0 = nil } }
}
