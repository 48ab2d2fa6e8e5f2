internal import Machine
internal import Synchronization
internal import VMCore

/// A guest's serial console, as its tests see it: what has been printed is kept, and can be waited for.
///
/// As an asynchronous sequence it is the lines, from the first that is kept, without their ends, fit for a terminal; it ends with the
/// guest. Any task, any thread.
public final class Console: AsyncSequence, Sendable {
    public typealias Element = String

    private struct Shared {
        /// What is kept, and how much came before it.
        var bytes: [UInt8] = []
        var dropped = 0
        /// Of what came, all in all: up to here `expect` has looked.
        var expected = 0
        var hasEnded = false
        var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter: UInt64 = 0

        var count: Int { dropped + bytes.count }

        /// Where in `bytes` a position in all that came is, or the first that is kept behind it.
        func index(of position: Int) -> Int { Swift.min(Swift.max(position - dropped, 0), bytes.count) }
    }

    private let shared = Mutex(Shared())
    private let keyboard = Mutex<GuestMachine?>(nil)

    /// Bytes that are kept.
    public static let limit = 1 << 20

    /// Bytes of a line that `expectLine` tells, where it comes in pieces.
    private static let longestLine = 4096

    init() {}

    /// What the guest has printed, as text fit for a terminal: the latest mebibyte, a line feed behind each line.
    public var text: String { PlainText.of(bytes) }

    /// The bytes themselves.
    public var bytes: [UInt8] { shared.withLock { Array($0.bytes.suffix(Self.limit)) } }

    /// The last lines, fit for a terminal.
    public func lastLines(_ count: Int) -> [String] {
        let tail = shared.withLock { Array($0.bytes.suffix(64 << 10)) }
        return PlainText.lines(tail, limit: PlainText.longestLine).suffix(count)
    }

    // MARK: What the guest says

    /// Takes what a machine's console says from now on, and types there.
    func follow(_ machine: GuestMachine) {
        begin()
        keyboard.withLock { $0 = machine }
        machine.console.setObserver { [weak self] in self?.receive($0) }
    }

    /// A new life: its first line is one of its own, and what was said before is not waited for any more.
    func begin() {
        shared.withLock { shared in
            if let last = shared.bytes.last, last != UInt8(ascii: "\n") { shared.bytes.append(UInt8(ascii: "\n")) }
            shared.expected = shared.count
            shared.hasEnded = false
        }
    }

    func receive(_ bytes: [UInt8]) {
        wake { shared in
            shared.bytes += bytes
            // Seldom, because it moves all that stays.
            if shared.bytes.count > Self.limit * 2 {
                let surplus = shared.bytes.count - Self.limit
                shared.bytes.removeFirst(surplus)
                shared.dropped += surplus
            }
        }
    }

    /// Nothing more will come in this life, if it is this machine's.
    func end(_ machine: GuestMachine) {
        let isIts = keyboard.withLock { keyboard in
            guard keyboard === machine else { return false }
            keyboard = nil
            return true
        }
        if isIts { close() }
    }

    /// Nothing more will come.
    func close() { wake { $0.hasEnded = true } }

    private func wake(_ change: (inout Shared) -> Void) {
        let waiters = shared.withLock { shared -> [CheckedContinuation<Void, Never>] in
            change(&shared)
            guard !shared.waiters.isEmpty else { return [] }
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
                    // A cancellation that comes later finds the waiter.
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

    /// Waits for a text, behind what the last `expect` found in this life.
    ///
    /// - Returns: all that came up to the text and with it, as it came.
    /// - Throws: `VirtualMachineError.timedOut`, `consoleEnded`; `CancellationError`.
    @discardableResult
    public func expect(_ text: String, within limit: Duration = .seconds(60)) async throws -> String {
        let pattern = Array(text.utf8)
        guard let first = pattern.first else { return "" }
        let found = try await expect("'\(text)' on the console", within: limit, overlap: pattern.count - 1) { bytes in
            var rest = bytes
            while let start = rest.firstIndex(of: first), rest.endIndex - start >= pattern.count {
                if rest[start...].starts(with: pattern) { return start + pattern.count }
                rest = rest[(start + 1)...]
            }
            return nil
        }
        return String(decoding: found, as: UTF8.self)
    }

    /// Waits for a line that fits, behind what the last `expect` found in this life.
    ///
    /// - Parameter fits: is given whole lines without their ends, fit for a terminal. Called with locks held: it must not ask the
    ///   console anything.
    /// - Returns: the line.
    /// - Throws: as `expect(_:within:)`.
    @discardableResult
    public func expectLine(within limit: Duration = .seconds(60), where fits: @escaping @Sendable (String) -> Bool) async throws -> String {
        let lineFeed = UInt8(ascii: "\n")
        let found = try await expect("such a line on the console", within: limit, overlap: nil) { bytes in
            var rest = bytes
            while let end = rest.firstIndex(of: lineFeed) {
                if fits(PlainText.line(rest[..<end])) { return end + 1 }
                rest = rest[(end + 1)...]
            }
            return nil
        }
        return found.split(separator: lineFeed).last.map { PlainText.line($0) } ?? ""
    }

    /// - Parameters:
    ///   - overlap: bytes before what is new that may be a part of what is waited for; nil: those of the line that has begun.
    ///   - find: the end of what is waited for.
    private func expect(
        _ what: String, within limit: Duration, overlap: Int?, _ find: @escaping @Sendable (ArraySlice<UInt8>) -> Int?
    ) async throws -> [UInt8] {
        try await withThrowingTaskGroup(of: [UInt8].self) { group in
            group.addTask {
                /// What has been looked at, of all that came: a guest that prints on and on is not read again and again.
                var seen = 0
                while true {
                    let (found, hasEnded) = self.shared.withLock { shared -> ([UInt8]?, Bool) in
                        let start = shared.index(of: shared.expected)
                        let rest = shared.bytes[start...]
                        var next = Swift.max(start, shared.index(of: seen - (overlap ?? 0)))
                        if overlap == nil, next > start {
                            let begun = rest[..<next].suffix(Self.longestLine)
                            next = begun.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? begun.startIndex
                        }
                        seen = shared.count
                        guard let end = find(rest[next...]) else { return (nil, shared.hasEnded) }
                        shared.expected = shared.dropped + end
                        return (Array(rest[..<end]), false)
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
            return try await group.next() ?? []
        }
    }

    /// Types on the console.
    ///
    /// - Throws: `VirtualMachineError.timedOut` where the guest does not read, `wrongState` where there is none; `CancellationError`.
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
        /// Of all that came.
        var position = 0
        /// What has been looked at for the end of a line.
        var seen = 0

        /// - Returns: nil at the guest's end, and where the task is cancelled.
        public mutating func next() async -> String? {
            while true {
                let (line, hasEnded) = look()
                if line != nil { return line }
                if hasEnded || Task.isCancelled { return nil }
                await console.waitForMore(than: seen)
            }
        }

        private mutating func look() -> (String?, Bool) {
            console.shared.withLock { shared in
                let start = shared.index(of: position)
                let rest = shared.bytes[start...]
                if let end = rest[Swift.max(start, shared.index(of: seen))...].firstIndex(of: UInt8(ascii: "\n")) {
                    position = shared.dropped + end + 1
                    seen = position
                    return (PlainText.line(rest[..<end]), false)
                }
                seen = shared.count
                // The last line may have no end.
                guard shared.hasEnded, !rest.isEmpty else { return (nil, shared.hasEnded) }
                position = shared.count
                return (PlainText.line(rest), false)
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(console: self) }
}
