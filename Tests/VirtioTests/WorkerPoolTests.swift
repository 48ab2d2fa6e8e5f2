import Glibc
import Synchronization
import Testing

@testable import Virtio

/// What disks and shares have their requests done by. The devices' own tests see to the rest of it.
@Suite struct WorkerPoolTests {
    private final class Job: WorkerRequest, @unchecked Sendable {
        var next: Job?
        var isDone = false
        var isCancelled = false
        func cancel() { isCancelled = true }
    }

    /// What holds up a thread.
    private final class Gate: Sendable {
        let isOpen = Atomic(false)
        let passing = Atomic(0)
        func pass() {
            passing.add(1, ordering: .sequentiallyConsistent)
            while !isOpen.load(ordering: .sequentiallyConsistent) { usleep(100) }
        }
    }

    private func pool(threads: Int = 1, _ perform: @escaping @Sendable (Job) -> Void) -> WorkerPool<Job, Void> {
        WorkerPool(threads: threads, named: "test", finished: WorkSlot(), scratch: {}) { job, _ in
            perform(job)
            job.isDone = true
        }
    }

    /// Tries for two seconds.
    private func becomes(_ condition: () -> Bool) -> Bool {
        for _ in 0..<2000 {
            if condition() { return true }
            usleep(1000)
        }
        return false
    }

    @Test func whatNoThreadHasTakenIsCancelledByTheEnd() throws {
        let gate = Gate()
        var pool: WorkerPool? = pool { _ in gate.pass() }
        let jobs = [Job(), Job(), Job()]
        #expect(jobs.map { pool?.submit($0) } == [.begun, .waits, .waits])
        #expect(becomes { gate.passing.load(ordering: .sequentiallyConsistent) == 1 })
        pool = nil
        #expect(jobs.map(\.isCancelled) == [false, true, true])
        gate.isOpen.store(true, ordering: .sequentiallyConsistent)
        #expect(becomes { jobs[0].isDone })
        #expect(jobs.map(\.isDone) == [true, false, false])
    }

    @Test func whatRequestsAreDoneOnGoesWithThePool() throws {
        weak var seen: Gate?
        var pool: WorkerPool<Job, Void>?
        do {
            let gate = Gate()
            gate.isOpen.store(true, ordering: .sequentiallyConsistent)
            seen = gate
            pool = self.pool { _ in gate.pass() }
        }
        #expect(pool?.submit(Job()) == .begun)
        #expect(becomes { pool?.takeFinished()?.isDone ?? false })
        #expect(seen != nil)
        // Its thread waits for more, which is nothing that holds it.
        pool = nil
        #expect(becomes { seen == nil })
    }

    @Test func aThreadBesideTheUsualOnesTakesWhatWaits() throws {
        let gate = Gate()
        let pool = pool { _ in gate.pass() }
        let jobs = [Job(), Job()]
        #expect(pool.submit(jobs[0]) == .begun && pool.submit(jobs[1]) == .waits)
        #expect(becomes { pool.backlog == (1, 1) })
        // No more than there may be.
        pool.relieve(limit: 1)
        #expect(!pool.drain(milliseconds: 10) && jobs[1].isCancelled)
        #expect(pool.takeFinished() === jobs[1])
        let other = Job()
        #expect(pool.submit(other) == .waits)
        pool.relieve(limit: 2)
        #expect(becomes { pool.backlog == (0, 2) })
        gate.isOpen.store(true, ordering: .sequentiallyConsistent)
        #expect(pool.drain(milliseconds: 2000))
        #expect(jobs[0].isDone && other.isDone && !other.isCancelled)
    }
}
