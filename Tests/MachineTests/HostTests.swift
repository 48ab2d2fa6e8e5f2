import Glibc
import MonitorTesting
import Synchronization
import Testing
import VMCore
@testable import Machine

private struct Pipe {
    let reader: Int32
    let writer: Int32
    init() {
        var ends: [Int32] = [0, 0]
        precondition(pipe(&ends) == 0)
        (reader, writer) = (ends[0], ends[1])
    }
    func closeBoth() {
        close(reader)
        close(writer)
    }
}

private func withLoop(_ body: (EventLoop, HostClock) throws -> Void) throws {
    let clock = HostClock()
    let loop = try EventLoop(clock: clock)
    try loop.start()
    defer { loop.stop() }
    try body(loop, clock)
}

/// Waits until `condition` holds, at most ten seconds.
private func eventually(_ condition: () -> Bool) -> Bool {
    for _ in 0..<2000 {
        if condition() { return true }
        usleep(5000)
    }
    return false
}

@Suite struct EventLoopTests {
    @Test func alarmsFireInOrderAndOnce() throws {
        try withLoop { loop, clock in
            let log = Mutex<[Int]>([])
            let start = clock.now()
            let alarms = [30, 10, 20].map { delay in
                (delay, loop.makeAlarm { log.withLock { $0.append(delay) } })
            }
            for (delay, alarm) in alarms { alarm.set(deadline: start + UInt64(delay) * 1_000_000) }
            let never = loop.makeAlarm { log.withLock { $0.append(99) } }
            never.set(deadline: start + 15_000_000)
            never.set(deadline: nil)
            #expect(eventually { log.withLock { $0.count >= 3 } })
            usleep(20_000)
            #expect(log.withLock { $0 } == [10, 20, 30])
        }
    }

    @Test func anAlarmMayRearmItself() throws {
        try withLoop { loop, clock in
            let count = Mutex(0)
            let own = Mutex<(any Alarm)?>(nil)
            let alarm = loop.makeAlarm {
                let fired = count.withLock { value in
                    value += 1
                    return value
                }
                if fired < 5 { own.withLock { $0 }?.set(deadline: clock.now()) }
            }
            own.withLock { $0 = alarm }
            alarm.set(deadline: 0)
            #expect(eventually { count.withLock { $0 == 5 } })
            own.withLock { $0 = nil }
        }
    }

    /// What is asked for on the loop itself is done, though nothing wakes the loop for it.
    @Test func workAsksForWork() throws {
        try withLoop { loop, clock in
            let count = Mutex(0)
            let own = Mutex<(any Work)?>(nil)
            let work = loop.makeWork {
                let done = count.withLock { value in
                    value += 1
                    return value
                }
                if done % 100 != 0 { own.withLock { $0 }?.schedule() }
            }
            own.withLock { $0 = work }
            work.schedule()
            #expect(eventually { count.withLock { $0 == 100 } })
            let alarm = loop.makeAlarm { work.schedule() }
            alarm.set(deadline: clock.now())
            #expect(eventually { count.withLock { $0 == 200 } })
            loop.post { loop.post { work.schedule() } }
            #expect(eventually { count.withLock { $0 == 300 } })
            own.withLock { $0 = nil }
        }
    }

    /// Work that never has enough leaves alarms, descriptors and other threads their turns.
    @Test func nobodyHasTheLoopForLong() throws {
        let pipe = Pipe()
        defer { pipe.closeBoth() }
        try withLoop { loop, clock in
            let others = Mutex(0)
            let isEnough = Mutex(false)
            let own = Mutex<(any Work)?>(nil)
            let work = loop.makeWork { if !isEnough.withLock({ $0 }) { own.withLock { $0 }?.schedule() } }
            own.withLock { $0 = work }
            work.schedule()
            let alarm = loop.makeAlarm { others.withLock { $0 += 1 } }
            alarm.set(deadline: clock.now() + 5_000_000)
            loop.post { others.withLock { $0 += 1 } }
            let token = loop.watch(pipe.reader, for: .readable) { _ in
                var byte: UInt8 = 0
                if read(pipe.reader, &byte, 1) == 1 { others.withLock { $0 += 1 } }
            }
            write(pipe.writer, "x", 1)
            #expect(eventually { others.withLock { $0 == 3 } })
            isEnough.withLock { $0 = true }
            own.withLock { $0 = nil }
            if let token { loop.unwatch(pipe.reader, token: token) }
        }
    }

    @Test func postedWorkRunsOnTheLoop() throws {
        try withLoop { loop, _ in
            let count = Mutex(0)
            for _ in 0..<1000 { loop.post { count.withLock { $0 += 1 } } }
            #expect(eventually { count.withLock { $0 == 1000 } })
        }
    }
}

@Suite struct DescriptorSinkTests {
    @Test func aReaderThatStopsCostsBoundedMemoryAndLosesNothing() throws {
        try withLoop { loop, clock in
            let pipe = Pipe()
            defer { pipe.closeBoth() }
            let sink = DescriptorSink(descriptor: pipe.writer, loop: loop, clock: clock, capacity: 4096)
            let space = Mutex(0)
            sink.setSpaceHandler { space.withLock { $0 += 1 } }
            var sent: [UInt8] = []
            // The pipe holds 64 KiB, the sink 4: a flood beyond is refused.
            var value: UInt8 = 0
            for _ in 0..<200_000 {
                let taken = withUnsafeBytes(of: value) { sink.write($0) }
                if taken == 0 { break }
                sent.append(value)
                value &+= 1
            }
            #expect(sent.count < 100_000)
            #expect(withUnsafeBytes(of: value) { sink.write($0) } == 0)
            var received: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while received.count < sent.count {
                let count = read(pipe.reader, &buffer, buffer.count)
                guard count > 0 else { break }
                received += buffer.prefix(count)
            }
            #expect(difference(of: received, from: sent) == nil)
            #expect(eventually { space.withLock { $0 > 0 } })
        }
    }

    @Test func aGoneReaderDoesNotStopTheGuest() throws {
        signal(SIGPIPE, SIG_IGN)
        try withLoop { loop, clock in
            let pipe = Pipe()
            let sink = DescriptorSink(descriptor: pipe.writer, loop: loop, clock: clock)
            close(pipe.reader)
            defer { close(pipe.writer) }
            for _ in 0..<1000 {
                #expect(Array("a line\n".utf8).withUnsafeBytes { sink.write($0) } == 7)
            }
            sink.drain()
        }
    }

    @Test func aPartOfALineComesSoon() throws {
        try withLoop { loop, clock in
            let pipe = Pipe()
            defer { pipe.closeBoth() }
            let sink = DescriptorSink(descriptor: pipe.writer, loop: loop, clock: clock)
            #expect(Array("prompt> ".utf8).withUnsafeBytes { sink.write($0) } == 8)
            var ready = pollfd(fd: pipe.reader, events: Int16(POLLIN), revents: 0)
            #expect(poll(&ready, 1, 5000) == 1)
            // The flags of the descriptor we were given are other processes' too.
            #expect(fcntl(pipe.writer, F_GETFL) & O_NONBLOCK == 0)
        }
    }
}

private final class SlowReceiver: ByteReceiver, @unchecked Sendable {
    private struct State {
        var room = 0
        var bytes: [UInt8] = []
        var handler: (@Sendable () -> Void)?
    }
    private let state = Mutex(State())
    var bytes: [UInt8] { state.withLock { $0.bytes } }
    func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            let taken = min(state.room, bytes.count)
            state.bytes += bytes.prefix(taken)
            state.room -= taken
            return taken
        }
    }
    func setRoomHandler(_ handler: @escaping @Sendable () -> Void) { state.withLock { $0.handler = handler } }
    func makeRoom(_ count: Int) {
        let handler = state.withLock { state in
            state.room += count
            return state.handler
        }
        handler?()
    }
}

@Suite struct DescriptorSourceTests {
    @Test func bytesTypedBeforeTheDeviceIsReadyArrive() throws {
        try withLoop { loop, _ in
            let pipe = Pipe()
            defer { pipe.closeBoth() }
            #expect(write(pipe.writer, "hello", 5) == 5)
            let source = DescriptorSource(descriptor: pipe.reader, loop: loop)
            source.start()
            usleep(20_000)
            let receiver = SlowReceiver()
            source.connect(receiver)
            usleep(20_000)
            #expect(receiver.bytes.isEmpty)
            receiver.makeRoom(2)
            #expect(eventually { receiver.bytes.count == 2 })
            receiver.makeRoom(100)
            #expect(eventually { receiver.bytes == Array("hello".utf8) })
            source.stop()
        }
    }

    @Test func aFileIsReadToItsEnd() throws {
        try withLoop { loop, _ in
            var name = Array("/tmp/windhover-source-XXXXXX".utf8CString)
            let file = mkstemp(&name)
            defer {
                close(file)
                unlink(name)
            }
            let content = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            #expect(write(file, content, content.count) == content.count)
            lseek(file, 0, SEEK_SET)
            let source = DescriptorSource(descriptor: file, loop: loop)
            let receiver = SlowReceiver()
            receiver.makeRoom(content.count)
            source.connect(receiver)
            source.start()
            #expect(eventually { receiver.bytes.count == content.count })
            #expect(difference(of: receiver.bytes, from: content) == nil)
            source.stop()
        }
    }
}
