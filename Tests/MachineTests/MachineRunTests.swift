import Glibc
import Synchronization
import Testing
import VMCore

@testable import Machine

/// The life of a guest on an engine that does as it is told, and on one that does not.
@Suite struct MachineRunTests {
    private func run(_ scripts: [ScriptedVCPU.Script], patience: UInt64 = 10_000_000_000) throws -> MachineRun {
        MachineRun(
            engine: ScriptedEngine(scripts), memory: try GuestMemory(size: 1 << 20), vcpuCount: scripts.count,
            clock: HostClock(), general: GeneralRegisters(), system: SystemRegisters(), patience: patience)
    }

    @Test func pausesAndGoesOn() throws {
        let run = try run([.runs, .runs])
        run.start()
        for _ in 0..<20 {
            run.pause()
            run.resume()
        }
        #expect(run.wait(until: HostClock().now()) == nil)
        run.stop()
        #expect(run.hasEnded)
        // A pause on the heels of another needs no kick: the vCPU stands still yet.
        #expect(run.statistics.kicks >= 2)
    }

    /// A vCPU that has halted for good never parks; the pause is as complete without it.
    @Test(.timeLimit(.minutes(1))) func pausesBesideOneThatHaltedForGood() throws {
        let run = try run([.runs, .halts])
        run.start()
        run.pause()
        run.resume()
        run.stop()
        #expect(run.hasEnded)
    }

    @Test func endsWhenAllHaveHalted() throws {
        let run = try run([.halts, .halts])
        run.start()
        guard case .halted = run.wait() else {
            Issue.record("not halted")
            return
        }
    }

    @Test func theFirstOutcomeCounts() throws {
        let run = try run([.runs])
        run.start()
        run.request(.powerOff)
        run.request(.reset)
        guard case .poweredOff = run.wait() else {
            Issue.record("not powered off")
            return
        }
    }

    /// Counts of a guest that runs, that stands still, that halts, and of one whose vCPU is kept.
    @Test func countsAreToldWhileTheGuestRuns() throws {
        let run = try run([.runs, .halts])
        run.start()
        // One that has not entered the guest yet answers the first without being kicked.
        for _ in 0..<2 { run.refreshStatistics(patience: 60_000_000_000) }
        let kicks = run.statistics.kicks
        #expect(kicks >= 1)
        run.pause()
        let start = HostClock().now()
        run.refreshStatistics(patience: 60_000_000_000)
        #expect(run.statistics.kicks >= kicks && HostClock().now() - start < 30_000_000_000)
        run.resume()
        run.stop()
        run.refreshStatistics()
        #expect(run.hasEnded)

        let stubborn = try self.run([.ignoresKicks], patience: 100_000_000)
        stubborn.start()
        stubborn.refreshStatistics(patience: 50_000_000)
        #expect(stubborn.statistics.kicks == 0)
        stubborn.requestStop()
    }

    /// The host keeps a vCPU in the guest: who waits is told so, within the patience asked for, and burns no processor.
    @Test func aVCPUThatIsNotLetGoHoldsNobody() throws {
        let run = try run([.ignoresKicks], patience: 300_000_000)
        run.start()
        // Asked to stop before it has entered the guest, it would not enter at all.
        while run.firstInstructionTime == nil { usleep(1000) }
        usleep(10_000)
        run.requestStop()
        let before = processorTime()
        let start = HostClock().now()
        guard case .stopped = run.wait(until: start + 1) else {
            Issue.record("not stopped")
            return
        }
        run.join()
        #expect(HostClock().now() - start < 20_000_000_000)
        #expect(!run.hasEnded)
        #expect(processorTime() - before < 200_000_000)
    }

    /// Nanoseconds that this thread has run for.
    private func processorTime() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}

/// vCPUs that do what their script says.
private final class ScriptedEngine: Engine {
    let name = "scripted"
    let scripts: [ScriptedVCPU.Script]
    init(_ scripts: [ScriptedVCPU.Script]) { self.scripts = scripts }
    func connect(ports: Bus, mmio: Bus) {}
    func makeVCPU(index: Int) throws(EngineError) -> any VCPU { ScriptedVCPU(index: index, scripts[index]) }
    func interruptLine(gsi: UInt32) -> (any InterruptLine)? { nil }
    var messages: (any InterruptMessageSink)? { nil }
    func connect(externalInterrupts source: any ExternalInterruptSource) {}
    func externalInterruptsChanged() {}
    func connect(endOfInterrupt listener: any EndOfInterruptListener) {}
    func disconnect() {}
    func setRoutes(_ routes: [InterruptRoute?]) {}
}

private final class ScriptedVCPU: VCPU {
    enum Script { case runs, halts, ignoresKicks }

    final class Kicker: VCPUKicker {
        let count = Atomic<Int>(0)
        func kick() { count.add(1, ordering: .sequentiallyConsistent) }
    }

    let index: Int
    let script: Script
    let counter = Kicker()
    private var seen = 0
    var statistics = ExitStatistics()
    var kicker: any VCPUKicker { counter }

    init(index: Int, _ script: Script) {
        self.index = index
        self.script = script
    }

    func run() -> VCPUExit {
        if script == .halts { return .halted }
        while true {
            usleep(1000)
            if script == .ignoresKicks { continue }
            let count = counter.count.load(ordering: .sequentiallyConsistent)
            if count != seen {
                seen = count
                statistics.kicks &+= 1
                return .kicked
            }
        }
    }

    func state() throws(EngineError) -> VCPUState { VCPUState() }
    func setState(_ state: VCPUState) throws(EngineError) {}
    func setEntry(general: GeneralRegisters, system: SystemRegisters) throws(EngineError) {}
}
