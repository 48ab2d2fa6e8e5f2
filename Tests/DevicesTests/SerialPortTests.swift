import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Devices

/// A port with everything around it in a test's hands.
struct SerialBench {
    let line = RecordingLine()
    let sink: MemorySink
    let port: SerialPort
    let roomCalls = Counter()

    final class Counter: Sendable {
        private let value = Atomic<Int>(0)
        func count() { value.wrappingAdd(1, ordering: .relaxed) }
        var calls: Int { value.load(ordering: .relaxed) }
    }

    init(capacity: Int = 65_536) {
        sink = MemorySink(capacity: capacity)
        port = SerialPort(line: line, sink: sink)
        port.setRoomHandler { [roomCalls] in roomCalls.count() }
    }

    func out(_ register: UInt64, _ value: UInt8) { port.write(offset: register, width: .byte, value: UInt64(value)) }
    func `in`(_ register: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: port.read(offset: register, width: .byte)) }

    /// Gives the port bytes, as a source on the host would.
    @discardableResult
    func type(_ bytes: [UInt8]) -> Int { bytes.withUnsafeBytes { port.receive($0) } }

    /// Reads all that is there, as an interrupt handler does.
    func readAll() -> [UInt8] {
        var bytes: [UInt8] = []
        while self.in(5) & 0x01 != 0, bytes.count < 1_000 { bytes.append(self.in(0)) }
        return bytes
    }

    /// Ready as an interrupt driver has it.
    func start(fcr: UInt8 = 0x81) {
        out(3, 0x03)
        out(2, fcr)
        out(4, 0x0B)
        out(1, 0x05)
    }
}

@Suite struct SerialOutputTests {
    @Test func printsInOrder() {
        let bench = SerialBench()
        for byte in "hello".utf8 {
            #expect(bench.in(5) & 0x60 == 0x60)
            bench.out(0, byte)
        }
        #expect(bench.sink.bytes == Array("hello".utf8))
        #expect(!bench.line.isHigh)
    }

    @Test func aFullSinkHoldsTheTransmitter() {
        let bench = SerialBench(capacity: 4)
        bench.start()
        for value in 0..<10 { bench.out(0, UInt8(value)) }
        #expect(bench.sink.bytes == [0, 1, 2, 3])
        #expect(bench.in(5) & 0x60 == 0)
        #expect(bench.sink.drain() == [0, 1, 2, 3])
        #expect(bench.sink.bytes == [4, 5, 6, 7])
        #expect(bench.in(5) & 0x60 == 0, "two still wait")
        bench.sink.drain()
        #expect(bench.sink.bytes == [8, 9])
        #expect(bench.in(5) & 0x60 == 0x60)
    }

    @Test func theInterruptComesWhenTheSinkHasRoom() {
        let bench = SerialBench()
        bench.start()
        bench.sink.pause()
        bench.out(1, 0x02)
        #expect(bench.in(2) & 0x0F == 0x02)
        bench.out(0, 0x41)
        #expect(!bench.line.isHigh)
        bench.sink.resume()
        #expect(bench.line.isHigh)
        #expect(bench.sink.bytes == [0x41])
    }

    /// A guest that heeds THRE loses nothing, whatever the host does; the host holds what it allowed.
    @Test func floodThatHeedsTHRE() {
        let bench = SerialBench(capacity: 1_000)
        bench.start()
        let total = 1_000_000
        var received = 0, next: UInt32 = 0, expected: UInt32 = 0
        var inOrder = true
        func byte(_ index: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 24) }
        while received < total {
            var burst = 0
            while Int(next) < total, bench.in(5) & 0x20 != 0, burst < 5_000 {
                for _ in 0..<min(16, total - Int(next)) {
                    bench.out(0, byte(next))
                    next += 1
                    burst += 1
                }
            }
            let taken = bench.sink.drain()
            #expect(taken.count <= 1_000)
            for value in taken {
                inOrder = inOrder && value == byte(expected)
                expected += 1
            }
            received += taken.count
        }
        #expect(inOrder)
        #expect(received == total)
        #expect(bench.in(5) & 0x60 == 0x60)
    }

    @Test func floodThatHeedsNothingIsBoundedAndAnswered() {
        let bench = SerialBench(capacity: 100)
        bench.start()
        for value in 0..<1_000_000 { bench.out(0, UInt8(truncatingIfNeeded: value)) }
        #expect(bench.sink.drain().count == 100)
        #expect(bench.sink.drain().count == 16)
        #expect(bench.sink.drain().isEmpty)
        #expect(bench.in(5) & 0x60 == 0x60)
        bench.out(0, 0x21)
        #expect(bench.sink.bytes == [0x21])
    }

    @Test func aCharacterAnInterruptSeesAnEdgeForEach() {
        // A handler that neither reads IIR nor LSR: it writes the next character.
        let bench = SerialBench()
        bench.out(4, 0x08)
        bench.out(1, 0x02)
        for count in 1...100 {
            #expect(bench.line.isHigh)
            #expect(bench.line.risingEdges == count)
            bench.out(0, 0x2E)
        }
    }

    @Test func aDriverThatReadsIIRIsNotChargedForEveryCharacter() {
        let bench = SerialBench()
        bench.start(fcr: 1)
        bench.out(1, 0x07)
        for round in 1...10 {
            #expect(bench.line.risingEdges == round)
            #expect(bench.in(2) & 0x0F == 0x02)
            #expect(!bench.line.isHigh)
            for _ in 0..<16 { bench.out(0, 0x2E) }
            #expect(bench.line.isHigh)
        }
        #expect(bench.sink.bytes.count == 160)
    }

    @Test func loopbackNeverReachesTheSink() {
        let bench = SerialBench()
        bench.start()
        bench.out(4, 0x1B)
        for value in 0..<100 { bench.out(0, UInt8(value)) }
        #expect(bench.sink.bytes.isEmpty)
        #expect(bench.sink.writes == 0)
    }

    @Test func theSinkDoesNotKeepThePortAlive() {
        let sink = MemorySink(capacity: 1)
        weak var weakPort: SerialPort?
        do {
            let port = SerialPort(line: UnconnectedLine(), sink: sink)
            weakPort = port
            port.write(offset: 0, width: .byte, value: 1)
            port.write(offset: 0, width: .byte, value: 2)
        }
        #expect(weakPort == nil)
        sink.drain()
        #expect(sink.bytes.isEmpty)
    }
}

@Suite struct SerialInputTests {
    @Test func interruptDriverReceives() {
        let bench = SerialBench()
        bench.start()
        #expect(bench.type([1, 2, 3]) == 3)
        #expect(bench.line.isHigh)
        #expect(bench.in(2) == 0xCC)
        #expect(bench.readAll() == [1, 2, 3])
        #expect(!bench.line.isHigh)
    }

    @Test func takesWhatFitsAndCallsWhenAllIsRead() {
        let bench = SerialBench()
        bench.start()
        let text = Array(UInt8(0)..<40)
        #expect(bench.type(text) == 16)
        #expect(bench.type(Array(text[16...])) == 0)
        #expect(bench.roomCalls.calls == 0)
        for index in 0..<15 { #expect(bench.in(0) == UInt8(index)) }
        #expect(bench.roomCalls.calls == 0)
        #expect(bench.in(0) == 15)
        #expect(bench.roomCalls.calls == 1)
        #expect(bench.type(Array(text[16...])) == 16)
        #expect(bench.readAll() == Array(text[16..<32]))
        #expect(bench.type(Array(text[32...])) == 8)
        #expect(bench.readAll() == Array(text[32...]))
        #expect(bench.roomCalls.calls == 2, "nobody waits any more")
    }

    @Test func theRoomHandlerMayFeedThePort() {
        let bench = SerialBench()
        let port = bench.port
        let rest = Mutex(Array(UInt8(0)..<100))
        let feed: @Sendable () -> Void = {
            rest.withLock { rest in
                let taken = rest.withUnsafeBytes { port.receive($0) }
                rest.removeFirst(taken)
            }
        }
        bench.port.setRoomHandler(feed)
        bench.start()
        feed()
        #expect(bench.readAll() == Array(UInt8(0)..<100))
    }

    @Test func nothingIsTakenBeforeTheGuestListens() {
        let bench = SerialBench()
        #expect(bench.type([1, 2, 3]) == 0)
        // What an early console does: programs the chip, raises DTR and RTS, prints with a look at LSR each time.
        bench.out(3, 0x03)
        bench.out(1, 0)
        bench.out(2, 0)
        bench.out(4, 0x03)
        for byte in [UInt8](repeating: 0x2E, count: 1_000) {
            while bench.in(5) & 0x20 == 0 {}
            bench.out(0, byte)
        }
        #expect(bench.type([1, 2, 3]) == 0)
        #expect(bench.roomCalls.calls == 0)
        bench.start()
        #expect(bench.roomCalls.calls == 1)
        #expect(bench.type([1, 2, 3]) == 3)
    }

    @Test func pollingGuestReceives() {
        // Bare metal: never enables an interrupt, waits for a key by reading LSR.
        let bench = SerialBench()
        bench.out(3, 0x03)
        bench.out(2, 0xC7)
        bench.out(4, 0x0B)
        #expect(bench.type([7]) == 0)
        var polls = 0
        while bench.in(5) & 0x01 == 0, polls < 1_000 {
            polls += 1
            if bench.roomCalls.calls > 0 { #expect(bench.type([7]) == 1) }
        }
        #expect(polls == InputGate.pollsToOpen)
        #expect(bench.in(0) == 7)
        #expect(bench.type([8]) == 1, "it goes on listening")
    }

    @Test func aGuestThatPrintsAndPollsReceives() {
        let bench = SerialBench()
        bench.out(2, 0x01)
        var received: UInt8?
        for _ in 0..<100 where received == nil {
            _ = bench.in(5)
            bench.out(0, 0x2E)
            if bench.in(5) & 0x01 != 0 { received = bench.in(0) }
            bench.type([9])
        }
        #expect(received == 9)
    }

    @Test func dtrWithoutRTSHoldsInputBack() {
        let bench = SerialBench()
        bench.start()
        bench.out(4, 0x09)
        #expect(bench.type([1]) == 0)
        bench.out(4, 0x0B)
        #expect(bench.roomCalls.calls == 1)
        #expect(bench.type([1]) == 1)
    }

    @Test func guestsThatLeaveTheModemLinesAloneReceive() {
        let bench = SerialBench()
        bench.out(4, 0x08)
        bench.out(1, 0x01)
        #expect(bench.type([1, 2]) == 1)
        #expect(bench.line.isHigh)
    }

    @Test func whatAGuestClearsUnreadIsDeliveredAgain() {
        let bench = SerialBench()
        bench.start()
        #expect(bench.type([1, 2, 3, 4]) == 4)
        #expect(bench.in(0) == 1)
        bench.out(1, 0)
        bench.out(2, 0)
        #expect(bench.in(5) & 0x01 == 0, "to the guest they are gone")
        #expect(bench.in(0) == 0)
        #expect(bench.type([5]) == 0)
        // With the interrupt enabled before the FIFOs are, as Linux has it: one comes, and is cleared again.
        bench.out(1, 0x05)
        bench.out(2, 0x81)
        #expect(bench.readAll() == [2, 3, 4])
        #expect(bench.type([5]) == 1)
        #expect(bench.readAll() == [5])
    }

    @Test func aSelfTestInLoopbackDoesNotMeetInput() {
        let bench = SerialBench()
        bench.start()
        bench.type([1, 2])
        bench.out(4, 0x1E)
        bench.out(0, 0xAE)
        #expect(bench.in(0) == 0xAE)
        #expect(bench.in(5) & 0x01 == 0)
        #expect(bench.type([3]) == 0)
        bench.out(4, 0x0F)
        #expect(bench.readAll() == [1, 2])
    }

    @Test func aHandlerThatReadsOneCharacterAnInterruptSeesAnEdgeForEach() {
        let bench = SerialBench()
        bench.start(fcr: 0xC1)
        bench.type(Array(UInt8(0)..<16))
        for index in 0..<16 {
            #expect(bench.line.risingEdges == index + 1)
            #expect(bench.line.isHigh)
            #expect(bench.in(0) == UInt8(index))
        }
        #expect(!bench.line.isHigh)
    }

    @Test func breakReachesTheGuest() {
        let bench = SerialBench()
        bench.start()
        bench.port.sendBreak()
        #expect(bench.in(2) & 0x0F == 0x06)
        #expect(bench.in(5) & 0x11 == 0x11)
        #expect(bench.in(0) == 0)
        #expect(!bench.line.isHigh)
    }

    @Test func emptyInputIsNoInput() {
        let bench = SerialBench()
        #expect(bench.type([]) == 0)
        bench.start()
        #expect(bench.roomCalls.calls == 0)
    }
}

@Suite struct SerialConcurrencyTests {
    /// A vCPU that prints and reads, a host that drains and types, at once: nothing is lost either way.
    @Test(.timeLimit(.minutes(1))) func bothWaysAtOnce() async {
        let bench = SerialBench(capacity: 64)
        let total = 50_000
        bench.start()
        async let guest: [UInt8] = Task.detached {
            var next = 0
            var received: [UInt8] = []
            while next < total || received.count < total {
                let status = bench.in(5)
                if status & 0x01 != 0 { received.append(bench.in(0)) }
                if status & 0x20 != 0, next < total {
                    bench.out(0, UInt8(truncatingIfNeeded: next))
                    next += 1
                }
            }
            return received
        }.value
        async let host: [UInt8] = Task.detached {
            var typed = 0
            var printed: [UInt8] = []
            while typed < total || printed.count < total {
                printed += bench.sink.drain()
                let chunk = (typed..<min(total, typed + 20)).map { UInt8(truncatingIfNeeded: $0 &* 3) }
                typed += bench.type(chunk)
            }
            return printed
        }.value
        let (received, printed) = await (guest, host)
        #expect(difference(of: received, from: (0..<total).lazy.map { UInt8(truncatingIfNeeded: $0 &* 3) }) == nil)
        #expect(difference(of: printed, from: (0..<total).lazy.map { UInt8(truncatingIfNeeded: $0) }) == nil)
    }
}
