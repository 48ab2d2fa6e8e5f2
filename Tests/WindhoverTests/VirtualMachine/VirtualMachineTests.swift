import Glibc
import Synchronization
import Testing

@testable import Windhover

/// A virtual machine that does not come to run.
@Suite(.timeLimit(.minutes(1))) struct VirtualMachineTests {
    private func machine(kernel: String) throws -> VirtualMachine {
        var configuration = VirtualMachineConfiguration()
        configuration.kernel = .path(kernel)
        configuration.engine = .interpreter
        configuration.memory = try MemorySize("64M")
        return try VirtualMachine(configuration)
    }

    @Test func whatDoesNotRunTakesNoOrders() async throws {
        let machine = try machine(kernel: "/no/such")
        #expect(machine.state == .stopped)
        let stopped = VirtualMachineError.wrongState(.stopped)
        await #expect(throws: stopped) { try await machine.run("true") }
        await #expect(throws: stopped) { try await machine.pause() }
        await #expect(throws: stopped) { try await machine.resume() }
        await #expect(throws: stopped) { try await machine.write([], to: "/x") }
        await #expect(throws: stopped) { try await machine.setMemoryTarget(MemorySize("32M")) }
        await #expect(throws: stopped) { _ = try await machine.memoryStatistics() }
        #expect(machine.memoryTarget == nil)
        await #expect(throws: ConfigurationError.self) { try await machine.setMemoryTarget(MemorySize("65M")) }
        await #expect(throws: stopped) { _ = try await machine.read("/x") }
        await machine.stop()
        machine.pressPowerButton()
        #expect(machine.state == .stopped && machine.failure == nil && machine.engine == nil)
        #expect(await machine.statistics() == nil)
    }

    @Test func whatCannotBeStartedSaysWhy() async throws {
        let machine = try machine(kernel: "/no/such")
        for _ in 0..<2 {
            let error = await #expect(throws: (any Error).self) { try await machine.start() }
            #expect(error is any ReportableError)
            #expect("\(error!)".contains("/no/such"))
            #expect(machine.state == .failed)
            #expect(machine.failure.map { "\($0)" } == "\(error!)")
        }
        // The same is said to whom asks it for something.
        let error = await #expect(throws: (any Error).self) { try await machine.run("true") }
        #expect("\(error!)".contains("/no/such"))
        await machine.stop()
        #expect(machine.state == .stopped && machine.failure == nil)
    }

    @Test func aFileThatIsNoKernelIsRefused() async throws {
        let error = await #expect(throws: (any Error).self) { try await machine(kernel: "/etc/passwd").start() }
        #expect("\(error!)".contains("/etc/passwd"))
    }

    @Test func aCancelledTaskStartsNothing() async throws {
        let machine = try machine(kernel: "/no/such")
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            try await machine.start()
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(machine.state == .stopped)
    }

    @Test func statesAreTold() async throws {
        var machine: VirtualMachine? = try machine(kernel: "/no/such")
        let states = try #require(machine).states
        try? await machine?.start()
        await machine?.stop()
        machine = nil
        var seen: [VirtualMachine.State] = []
        // It ends with the machine.
        for await state in states { seen.append(state) }
        #expect(seen == [.stopped, .starting, .failed, .stopping, .stopped])
    }

    /// However calls come: one start at a time, and in the end it is stopped.
    @Test func callsInAnyOrderComeToAnEnd() async throws {
        let machine = try machine(kernel: "/no/such")
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<40 {
                group.addTask {
                    if number % 2 == 0 { try? await machine.start() } else { await machine.stop() }
                }
            }
        }
        await machine.stop()
        #expect(machine.state == .stopped)
    }

    /// Who reads the console of a machine that is dropped comes to its end.
    @Test func aDroppedMachineEndsItsConsole() async throws {
        var machine: VirtualMachine? = try machine(kernel: "/no/such")
        let console = try #require(machine).console
        let reader = Task { for await _ in console {} }
        machine = nil
        await reader.value
        #expect(machine == nil)
    }
}

/// What a task waits for.
@Suite(.timeLimit(.minutes(1))) struct PromiseTests {
    @Test func theFirstResultCounts() async throws {
        let promise = Promise<Int>()
        async let (one, two) = (promise.value, promise.value)
        #expect(promise.resolve(.success(1)))
        #expect(!promise.resolve(.success(2)))
        #expect(try await (one, two) == (1, 1))
        #expect(try await promise.value == 1)
    }

    @Test func workThatDoesNotEndIsLeft() async throws {
        let told = Mutex(false)
        let released = Mutex(false)
        let (begun, ended) = (Promise<Void>(), Promise<Void>())
        let task = Task {
            try await Blocking.run(patience: .milliseconds(50), onCancel: { told.withLock { $0 = true } }) {
                begun.resolve(.success(()))
                while !released.withLock({ $0 }) { usleep(10_000) }
                ended.resolve(.success(()))
            }
        }
        try await begun.value
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(told.withLock { $0 })
        released.withLock { $0 = true }
        try await ended.value
    }
}
