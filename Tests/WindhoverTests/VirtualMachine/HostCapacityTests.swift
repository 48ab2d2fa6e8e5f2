import Synchronization
import Testing

@testable import Windhover
@testable import WindhoverTesting

/// Who gets what the host has for guests, and when.
@Suite(.timeLimit(.minutes(1))) struct HostCapacityTests {
    /// What runs now, and the most that ever ran at once.
    private final class Gauge: Sendable {
        private let state = Mutex((now: 0, most: 0, order: [Int]()))
        var most: Int { state.withLock { $0.most } }
        var now: Int { state.withLock { $0.now } }
        var order: [Int] { state.withLock { $0.order } }

        func run(_ number: Int, for time: Duration) async throws {
            state.withLock { state in
                state.now += 1
                state.most = max(state.most, state.now)
                state.order.append(number)
            }
            defer { state.withLock { $0.now -= 1 } }
            try await Task.sleep(for: time)
        }
    }

    private func guest(_ memory: String, cpus: Int = 1) throws -> VirtualMachineConfiguration {
        var configuration = VirtualMachineConfiguration()
        configuration.memory = try MemorySize(memory)
        configuration.cpuCount = cpus
        return configuration
    }

    @Test(arguments: [(8 << 30, 3, 3), (2 << 30, 16, 1), (3 << 30, 16, 2)])
    func noMoreRunThanFit(memory: Int, cpus: Int, most: Int) async throws {
        let capacity = HostCapacity(memory: UInt64(memory), cpus: cpus)
        let (gauge, guest) = (Gauge(), try guest("1G"))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<12 {
                group.addTask { try await capacity.withShare(of: guest, isUrgent: false) { try await gauge.run(number, for: .milliseconds(20)) } }
            }
            try await group.waitForAll()
        }
        #expect(gauge.most == most)
        #expect(gauge.order.count == 12)
    }

    @Test func whatIsLargerThanTheHostRunsAlone() async throws {
        let capacity = HostCapacity(memory: 1 << 30, cpus: 1)
        let (gauge, large) = (Gauge(), try guest("16G", cpus: 8))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<3 {
                group.addTask { try await capacity.withShare(of: large, isUrgent: false) { try await gauge.run(number, for: .milliseconds(5)) } }
            }
            try await group.waitForAll()
        }
        #expect(gauge.most == 1)
    }

    /// Runs until it is let go.
    private func hold(_ capacity: HostCapacity, _ guest: VirtualMachineConfiguration, _ gauge: Gauge, _ number: Int, _ end: Promise<Void>) -> Task<Void, any Error> {
        Task {
            try await capacity.withShare(of: guest, isUrgent: false) {
                try await gauge.run(number, for: .zero)
                try await end.value
            }
        }
    }

    private func wait(until isSo: () -> Bool) async throws {
        while !isSo() { try await Task.sleep(for: .milliseconds(2)) }
    }

    /// A large one is not passed over by small ones that come after it.
    @Test func whoComesFirstIsServedFirst() async throws {
        let capacity = HostCapacity(memory: 2 << 30, cpus: 8)
        let (gauge, end) = (Gauge(), Promise<Void>())
        var tasks: [Task<Void, any Error>] = []
        for (number, memory) in ["1G", "1500M", "128M"].enumerated() {
            tasks.append(hold(capacity, try guest(memory), gauge, number, end))
            try await wait { number == 0 ? gauge.order.count == 1 : capacity.waitingCount == number }
        }
        #expect(gauge.order == [0])
        end.resolve(.success(()))
        for task in tasks { try await task.value }
        #expect(gauge.order.first == 0 && gauge.order.count == 3)
    }

    /// Who has a guest and wants another does not wait for himself.
    @Test func whoIsUrgentDoesNotWait() async throws {
        let capacity = HostCapacity(memory: 1 << 30, cpus: 1)
        let guest = try guest("1G")
        var wasInside = false
        try await capacity.withShare(of: guest, isUrgent: false) {
            try await capacity.withShare(of: guest, isUrgent: true) { wasInside = true }
        }
        #expect(wasInside)
    }

    @Test func whoIsCancelledGoesAndIsNoHindrance() async throws {
        let capacity = HostCapacity(memory: 2 << 30, cpus: 8)
        let (gauge, end, none) = (Gauge(), Promise<Void>(), Promise<Void>())
        none.resolve(.success(()))
        let holder = hold(capacity, try guest("1G"), gauge, 0, end)
        try await wait { gauge.order == [0] }
        let large = hold(capacity, try guest("1500M"), gauge, 1, none)
        try await wait { capacity.waitingCount == 1 }
        let behind = hold(capacity, try guest("128M"), gauge, 2, none)
        try await wait { capacity.waitingCount == 2 }
        large.cancel()
        await #expect(throws: CancellationError.self) { try await large.value }
        // There was room for it all the while.
        try await behind.value
        #expect(gauge.order == [0, 2])
        end.resolve(.success(()))
        try await holder.value
    }

    @Test func theHostSaysWhatItHas() throws {
        #expect(try #require(HostFacts.availableMemory()) <= #require(HostFacts.physicalMemory()))
        #expect(HostFacts.processorCount() >= 1)
    }
}
