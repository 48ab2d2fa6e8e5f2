internal import Virtio

/// What a guest's kernel says of its memory: the guest's word, of which nothing depends. nil for what it does not tell.
public struct MemoryStatistics: Hashable, Sendable {
    /// Bytes of the machine's memory that the guest has: all but what is in its balloon.
    public let size: UInt64
    /// Bytes that its kernel has at its disposal; what the kernel itself is made of is not among them.
    public let total: UInt64?
    /// Bytes that are used for nothing.
    public let free: UInt64?
    /// An estimate of the bytes that new programs could have without swapping.
    public let available: UInt64?
    /// Bytes of caches that could be dropped.
    public let caches: UInt64?
    /// Bytes since the guest's start.
    public let swappedIn: UInt64?
    public let swappedOut: UInt64?
    /// Page faults that needed the disk, and those that did not.
    public let majorFaults: UInt64?
    public let minorFaults: UInt64?

    init(size: UInt64, _ told: BalloonStatistics) {
        self.size = size
        (total, free, available, caches) = (told.total, told.free, told.available, told.caches)
        (swappedIn, swappedOut, majorFaults, minorFaults) = (told.swappedIn, told.swappedOut, told.majorFaults, told.minorFaults)
    }
}

extension VirtualMachine {
    /// What the guest was last asked to make do with: all of its memory, if nothing was said in this life. nil without a balloon, or
    /// without a guest that runs.
    public var memoryTarget: MemorySize? {
        guard let balloon = try? memoryBalloon() else { return nil }
        return try? MemorySize(bytes: configuration.memory.bytes &- min(balloon.target, configuration.memory.bytes))
    }

    /// Asks the guest to make do with so much memory, and returns when it does. What it gives up leaves this process at once; when
    /// it is asked to make do with more, it has that back, as zeros.
    ///
    /// It gives up what it does not use, then caches, and no more than it can spare. Where several tasks ask, the last one is
    /// heard, and all return when the guest has done what that one wanted.
    ///
    /// - Parameters:
    ///   - target: the machine's whole memory at most.
    ///   - limit: how long that may take. What was asked for stands, whether the guest has come to it by then or not.
    /// - Throws: `ConfigurationError` for a target of more than the machine has; `VirtualMachineError`: `noBalloon`, `timedOut`,
    ///   `wrongState`; `GuestFailure`; `CancellationError`.
    public func setMemoryTarget(_ target: MemorySize, within limit: Duration = .seconds(60)) async throws {
        guard target.bytes <= configuration.memory.bytes else {
            throw ConfigurationError.impossible("a guest that has \(configuration.memory) cannot make do with \(target): that is more")
        }
        let balloon = try memoryBalloon()
        balloon.setTarget(bytes: configuration.memory.bytes &- target.bytes)
        try await wait(for: "a guest that makes do with \(target)", within: limit) { balloon.actual == balloon.target }
    }

    /// Asks the guest's kernel how it stands with its memory.
    ///
    /// - Throws: `VirtualMachineError`: `noBalloon`, `wrongState`, `timedOut` where the guest does not answer; `GuestFailure`;
    ///   `CancellationError`.
    public func memoryStatistics(within limit: Duration = .seconds(10)) async throws -> MemoryStatistics {
        let balloon = try memoryBalloon()
        let before = balloon.guestStatistics?.updates
        balloon.requestStatistics()
        try await wait(for: "the guest's word of its memory", within: limit) {
            let now = balloon.guestStatistics?.updates
            return now != nil && now != before
        }
        let memory = configuration.memory.bytes
        return MemoryStatistics(size: memory &- min(balloon.actual, memory), balloon.guestStatistics ?? BalloonStatistics())
    }

    private func memoryBalloon() throws -> BalloonDevice {
        guard let balloon = try running().machine.balloon else { throw VirtualMachineError.noBalloon }
        return balloon
    }

    /// Looks again and again: a guest tells of each of its steps by a register, and nobody needs to know to the millisecond.
    private func wait(for what: String, within limit: Duration, until isSo: () -> Bool) async throws {
        let clock = ContinuousClock()
        let deadline = clock.now + limit
        while !isSo() {
            _ = try running()
            guard clock.now < deadline else { throw VirtualMachineError.timedOut(waitingFor: what) }
            try await Task.sleep(for: .milliseconds(10))
        }
    }
}
