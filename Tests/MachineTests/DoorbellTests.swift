import Glibc
import Synchronization
import Testing
import VMCore

@testable import Machine

/// Doorbells that a guest takes away at any moment.
@Suite struct DoorbellTests {
    /// An engine that has eventfds rung, and nothing else.
    private final class RingingEngine: Engine {
        let attached = Mutex<[Int32]>([])
        let name = "ringing"
        var messages: (any InterruptMessageSink)? { nil }
        func connect(ports: Bus, mmio: Bus) {}
        func makeVCPU(index: Int) throws(EngineError) -> any VCPU { throw .host(call: "none", errno: ENOSYS) }
        func interruptLine(gsi: UInt32) -> (any InterruptLine)? { nil }
        func connect(externalInterrupts source: any ExternalInterruptSource) {}
        func externalInterruptsChanged() {}
        func connect(endOfInterrupt listener: any EndOfInterruptListener) {}
        func attach(_ doorbell: Doorbell, to descriptor: Int32) -> Bool {
            attached.withLock { $0.append(descriptor) }
            return true
        }
        func detach(_ doorbell: Doorbell, from descriptor: Int32) {
            attached.withLock { $0.removeAll { $0 == descriptor } }
        }
        func disconnect() {}
        func setRoutes(_ routes: [InterruptRoute?]) {}
    }

    /// A loop whose handlers a test calls, also those that it was on the point of calling.
    private final class Watches: EventService {
        private final class Nothing: Work, Alarm {
            func schedule() {}
            func set(deadline: UInt64?) {}
        }
        let handlers = Mutex<[UInt64: @Sendable (Readiness) -> Void]>([:])
        func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work { Nothing() }
        func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm { Nothing() }
        func watch(
            _ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void
        ) -> UInt64? {
            handlers.withLock { $0[UInt64(descriptor)] = handler }
            return UInt64(descriptor)
        }
        func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {}
        func unwatch(_ descriptor: Int32, token: UInt64) { handlers.withLock { $0[token] = nil } }
    }

    /// The loop has begun to answer a doorbell when its region moves: what has the descriptor's number is still the doorbell.
    @Test func removedWhileItIsAnswered() throws {
        let (engine, watches) = (RingingEngine(), Watches())
        let doorbells = Doorbells(engine: engine, events: watches)
        #expect(doorbells.add(Doorbell(address: GuestAddress(0x1000), width: .word)) {})
        let descriptor = try #require(engine.attached.withLock { $0.first })
        var handler = watches.handlers.withLock { $0.values.first }
        doorbells.remove()
        #expect(engine.attached.withLock { $0.isEmpty } && watches.handlers.withLock { $0.isEmpty })
        #expect(fcntl(descriptor, F_GETFD) >= 0, "its number may be another's by now")
        handler?(.readable)
        handler = nil
        withExtendedLifetime(doorbells) {}
    }

    @Test func ringsUntilItIsRemoved() throws {
        let (engine, watches) = (RingingEngine(), Watches())
        let doorbells = Doorbells(engine: engine, events: watches)
        final class Count: Sendable { let value = Mutex(0) }
        let count = Count()
        for place in 0..<3 as Range<UInt64> {
            let doorbell = Doorbell(address: GuestAddress(0x1000 + place), width: .word)
            #expect(doorbells.add(doorbell) { count.value.withLock { $0 += 1 } })
        }
        #expect(Set(engine.attached.withLock { $0 }).count == 3)
        for handler in watches.handlers.withLock({ Array($0.values) }) { handler(.readable) }
        #expect(count.value.withLock { $0 } == 3)
        doorbells.remove { $0.address.rawValue == 0x1001 }
        #expect(engine.attached.withLock { $0.count } == 2)
    }
}
