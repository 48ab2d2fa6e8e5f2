internal import Machine
internal import Synchronization
internal import VMCore

/// A guest's serial console, as its tests see it: what has been printed is kept, and can be waited for.
///
/// As an asynchronous sequence it is the lines, from the first that is kept, without their ends, fit for a terminal; it ends with the
/// guest.
public final class Console: AsyncSequence, Sendable {
    public typealias Element = String

    private struct Shared {
        /// What is kept, and how much came before it.
        var bytes: [UInt8] = []
        var dropped = 0
        /// Of what came, all in all: up to here `expect` has looked.
        var expected = 0
        var hasEnded = true
        var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter: UInt64 = 0

        var count: Int { dropped + bytes.count }
    }

    private let shared = Mutex(Shared())
    private let keyboard = Mutex<GuestMachine?>(nil)

    /// Bytes that are kept.
    public static let limit = 1 << 20

    init() {}

    /// What the guest has printed, as text fit for a terminal: the latest mebibyte.
    public var text: String {
        shared.withLock { $0.bytes }.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { Printable.text($0) }
            .joined(separator: "\n")
    }

    /// The bytes themselves.
    public var bytes: [UInt8] { shared.withLock { $0.bytes } }

    /// Takes what a machine's console says from now on, and types there.
    func follow(_ machine: GuestMachine) {
        shared.withLock { $0.hasEnded = false }
        machine.console.setObserver { [weak self] in self?.receive($0) }
        keyboard.withLock { $0 = machine }
    }

    private func receive(_ bytes: [UInt8]) {
        wake { shared in
            shared.bytes += bytes
            if shared.bytes.count > Self.limit * 2 {
                let surplus = shared.bytes.count - Self.limit
                shared.bytes.removeFirst(surplus)
                shared.dropped += surplus
            }
        }
    }

    /// Nothing more will come in this life.
    func end() {
        keyboard.withLock { $0 = nil }
        wake { $0.hasEnded = true }
    }

    private func wake(_ change: (inout Shared) -> Void) {
        let waiters = shared.withLock { shared -> [CheckedContinuation<Void, Never>] in
            change(&shared)
            defer { shared.waiters = [:] }
            return Array(shared.waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Returns when more than `seen` bytes have come, or the guest has ended, or the task is cancelled.
    private func waitForMore(than seen: Int) async {
        let token = shared.withLock { shared in
            defer { shared.nextWaiter &+= 1 }
            return shared.nextWaiter
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isThere = shared.withLock { shared in
                    guard shared.count <= seen, !shared.hasEnded, !Task.isCancelled else { return true }
                    shared.waiters[token] = continuation
                    return false
                }
                if isThere { continuation.resume() }
            }
        } onCancel: {
            shared.withLock { $0.waiters.removeValue(forKey: token) }?.resume()
        }
    }

    // MARK: Waiting for something

    /// Waits for a text, behind what the last `expect` found.
    ///
    /// - Returns: all that came up to the text and with it.
    /// - Throws: `VirtualMachineError.timedOut`, `consoleEnded`; `CancellationError`.
    @discardableResult
    public func expect(_ text: String, within limit: Duration = .seconds(60)) async throws -> String {
        let pattern = Array(text.utf8)
        return try await expect("'\(text)' on the console", within: limit) { bytes in
            guard !pattern.isEmpty else { return bytes.startIndex }
            guard bytes.count >= pattern.count else { return nil }
            var index = bytes.startIndex
            while index <= bytes.endIndex - pattern.count {
                if bytes[index...].starts(with: pattern) { return index + pattern.count }
                index += 1
            }
            return nil
        }
    }

    /// Waits for a line that fits, behind what the last `expect` found.
    ///
    /// - Returns: the line.
    @discardableResult
    public func expectLine(within limit: Duration = .seconds(60), where fits: @escaping @Sendable (String) -> Bool) async throws -> String {
        let found = try await expect("such a line on the console", within: limit) { bytes in
            var start = bytes.startIndex
            while let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) {
                if fits(Printable.text(bytes[start..<end])) { return end + 1 }
                start = end + 1
            }
            return nil
        }
        return found.split(separator: "\n").last.map { Printable.text($0.utf8) } ?? ""
    }

    /// - Parameter find: the end of what is waited for, in what has come since the last.
    private func expect(
        _ what: String, within limit: Duration, _ find: @escaping @Sendable (ArraySlice<UInt8>) -> Int?
    ) async throws -> String {
        try await withThrowingTaskGroup(of: String.self) { group in
            group.addTask {
                while true {
                    let (found, seen, hasEnded) = self.shared.withLock { shared -> (String?, Int, Bool) in
                        let start = Swift.min(Swift.max(shared.expected - shared.dropped, 0), shared.bytes.count)
                        let rest = shared.bytes[start...]
                        guard let end = find(rest) else { return (nil, shared.count, shared.hasEnded) }
                        shared.expected = shared.dropped + end
                        return (String(decoding: rest[..<end], as: UTF8.self), 0, false)
                    }
                    if let found { return found }
                    if hasEnded { throw VirtualMachineError.consoleEnded(waitingFor: what) }
                    try Task.checkCancellation()
                    await self.waitForMore(than: seen)
                }
            }
            group.addTask {
                try await Task.sleep(for: limit)
                throw VirtualMachineError.timedOut(waitingFor: what)
            }
            defer { group.cancelAll() }
            return try await group.next() ?? ""
        }
    }

    /// Types on the console.
    ///
    /// - Throws: `VirtualMachineError.timedOut` where the guest does not read.
    public func type(_ text: String, within limit: Duration = .seconds(60)) async throws {
        var rest = Array(text.utf8)[...]
        let clock = ContinuousClock()
        let deadline = clock.now + limit
        while !rest.isEmpty {
            guard let machine = keyboard.withLock({ $0 }) else { throw VirtualMachineError.wrongState(.stopped) }
            rest = rest.dropFirst(machine.type(Array(rest)))
            if rest.isEmpty { return }
            guard clock.now < deadline else { throw VirtualMachineError.timedOut(waitingFor: "a guest that reads its console") }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    // MARK: As a sequence

    public struct AsyncIterator: AsyncIteratorProtocol {
        let console: Console
        var position = 0

        public mutating func next() async -> String? {
            while true {
                let (line, end, hasEnded) = console.shared.withLock { shared -> (String?, Int, Bool) in
                    let start = Swift.min(Swift.max(position - shared.dropped, 0), shared.bytes.count)
                    let rest = shared.bytes[start...]
                    if let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                        return (Printable.text(rest[..<end]), shared.dropped + end + 1, false)
                    }
                    // The last line may have no end.
                    if shared.hasEnded, !rest.isEmpty { return (Printable.text(rest), shared.count, false) }
                    return (nil, shared.count, shared.hasEnded)
                }
                if let line {
                    position = end
                    return line
                }
                if hasEnded || Task.isCancelled { return nil }
                await console.waitForMore(than: end)
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(console: self) }
}
