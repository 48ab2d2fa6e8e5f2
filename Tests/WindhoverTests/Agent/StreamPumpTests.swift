import Glibc
import Testing
import MonitorTesting

@testable import Windhover

/// Copies between a guest's stream and the host's descriptors.
@Suite(.timeLimit(.minutes(2))) struct StreamPumpTests {
    /// A pump of output, with the guest's end of its stream.
    private func output(to sink: StreamPump.Target) throws -> (StreamPump, Int32) {
        let (host, guest) = socketPair()
        return (try StreamPump.output(from: StreamDescriptor(socket: host), to: sink) { _ in }, guest)
    }

    private func output(to descriptor: Int32) throws -> (StreamPump, Int32) {
        try output(to: .descriptor(StreamDescriptor(sharing: descriptor, mode: O_WRONLY)))
    }

    private func input(from descriptor: Int32) throws -> (StreamPump, Int32) {
        let (host, guest) = socketPair()
        let source = try StreamDescriptor(sharing: descriptor, mode: O_RDONLY)
        return (try StreamPump.input(from: .descriptor(source), to: StreamDescriptor(socket: host)) { _ in }, guest)
    }

    /// Bytes that repeat after no round number.
    private static func pattern(_ count: Int) -> [UInt8] {
        let period = (0..<251).map { UInt8($0) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + period.count)
        while bytes.count < count { bytes += period }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    private static let block = pattern(65_536)

    @Test func fiftyMegabytesEachWayAreTheSameOnTheOtherSide() throws {
        let bytes = Self.pattern(50 << 20)
        let (reader, writer) = pipePair()
        let (outgoing, guest) = try output(to: writer)
        // The caller's own end does not keep the pipe open.
        close(writer)
        let written = Background {
            writeAll(guest, bytes)
            close(guest)
            return true
        }
        #expect(difference(of: readToEnd(reader), from: bytes) == nil)
        #expect(written.wait() == true)
        #expect(outgoing.wait(until: after(5)) == .finished)
        close(reader)

        let (source, feed) = pipePair()
        let (incoming, guestInput) = try input(from: source)
        close(source)
        let fed = Background {
            writeAll(feed, bytes)
            close(feed)
            return true
        }
        #expect(difference(of: readToEnd(guestInput), from: bytes) == nil)
        #expect(fed.wait() == true)
        #expect(incoming.wait(until: after(5)) == .finished)
        close(guestInput)
    }

    @Test func anInputsEndIsAHalfClose() throws {
        let (source, feed) = pipePair()
        let (host, guest) = socketPair()
        let stream = StreamDescriptor(socket: host)
        let incoming = try StreamPump.input(
            from: .descriptor(StreamDescriptor(sharing: source, mode: O_RDONLY)), to: stream) { _ in }
        let collector = OutputCollector(limit: 100)
        let outgoing = try StreamPump.output(from: stream, to: .collector(collector)) { _ in }
        writeAll(feed, Array("in".utf8))
        close(feed)
        #expect(readToEnd(guest) == Array("in".utf8))
        #expect(incoming.wait(until: after(5)) == .finished)
        // The other direction is open still.
        #expect(writeAll(guest, Array("out".utf8)))
        close(guest)
        #expect(outgoing.wait(until: after(5)) == .finished)
        #expect(collector.bytes == Array("out".utf8))
        close(source)
    }

    @Test func bytesOfTheCallersAreAnInputThatEnds() throws {
        let (host, guest) = socketPair()
        let bytes = Self.pattern(3 << 20)
        let pump = try StreamPump.input(from: .bytes(bytes), to: StreamDescriptor(socket: host)) { _ in }
        #expect(difference(of: readToEnd(guest), from: bytes) == nil)
        #expect(pump.wait(until: after(5)) == .finished)
        close(guest)
    }

    @Test func filesAreReadAndWritten() throws {
        let directory = TemporaryDirectory()
        let bytes = Self.pattern(1 << 20)
        let file = open(directory.file("f", ""), O_RDWR)
        defer { close(file) }
        let (outgoing, guest) = try output(to: file)
        writeAll(guest, bytes)
        close(guest)
        #expect(outgoing.wait(until: after(5)) == .finished)
        lseek(file, 0, SEEK_SET)
        let (incoming, guestInput) = try input(from: file)
        #expect(difference(of: readToEnd(guestInput), from: bytes) == nil)
        #expect(incoming.wait(until: after(5)) == .finished)
        close(guestInput)
    }

    @Test func aSlowReaderHoldsBackItsOwnStreamAlone() throws {
        let (slowReader, slowWriter) = pipePair()
        let (slow, slowGuest) = try output(to: slowWriter)
        close(slowWriter)
        let bytes = Self.pattern(4 << 20)
        let held = Background {
            writeAll(slowGuest, bytes)
            close(slowGuest)
            return true
        }
        // Nobody reads: the guest has to wait.
        #expect(held.wait(0.3) == nil)
        let collector = OutputCollector(limit: bytes.count)
        let (fast, fastGuest) = try output(to: .collector(collector))
        writeAll(fastGuest, bytes)
        close(fastGuest)
        #expect(fast.wait(until: after(10)) == .finished)
        #expect(difference(of: collector.bytes, from: bytes) == nil)
        #expect(slow.wait(until: after(0.01)) == nil)
        // An end of the command does not cut off what is still to be read.
        slow.finish()
        usleep(200_000)
        #expect(difference(of: readToEnd(slowReader), from: bytes) == nil)
        #expect(slow.wait(until: after(5)) == .finished)
        close(slowReader)
    }

    @Test func aReaderThatGoesClosesTheGuestsStream() throws {
        let (reader, writer) = pipePair()
        let (pump, guest) = try output(to: writer)
        close(writer)
        close(reader)
        let refused = Background { while writeAll(guest, Self.block) {}; return true }
        #expect(refused.wait(10) == true)
        #expect(pump.wait(until: after(5)) == .readerGone)
        #expect(readToEnd(guest) == [])
        close(guest)
    }

    @Test func aFullDiskIsAFailureAndTheGuestsStreamIsClosed() throws {
        let full = open("/dev/full", O_WRONLY)
        let (pump, guest) = try output(to: full)
        close(full)
        let refused = Background { while writeAll(guest, Self.block) {}; return true }
        #expect(refused.wait(10) == true)
        #expect(pump.wait(until: after(5)) == .failed(call: "write", errno: ENOSPC))
        close(guest)
    }

    @Test func aGuestThatClosesItsInputTakesNoMoreOfTheSource() throws {
        let (source, feed) = pipePair()
        let (pump, guest) = try input(from: source)
        writeAll(feed, Array("first".utf8))
        #expect(readToEnd(guest, limit: 5) == Array("first".utf8))
        close(guest)
        #expect(pump.wait(until: after(5)) == .readerGone)
        writeAll(feed, Array("next".utf8))
        close(feed)
        #expect(readToEnd(source) == Array("next".utf8))
        close(source)
    }

    @Test func aSourceThatCannotBeReadEndsTheInput() throws {
        let directory = open("/", O_RDONLY | O_DIRECTORY)
        let (pump, guest) = try input(from: directory)
        close(directory)
        #expect(readToEnd(guest) == [])
        #expect(pump.wait(until: after(5)) == .failed(call: "read", errno: EISDIR))
        close(guest)
    }

    @Test func itEndsAtOnceWhateverItWaitsFor() throws {
        // For a guest that says nothing.
        let (silent, silentGuest) = try output(to: .nothing)
        // For a reader that reads nothing.
        let (reader, writer) = pipePair()
        let (stuck, stuckGuest) = try output(to: writer)
        let flood = Background { while writeAll(stuckGuest, Self.block) {}; return true }
        // For a source that has nothing.
        let (source, feed) = pipePair()
        let (idle, idleGuest) = try input(from: source)
        // For a guest that reads nothing.
        let zero = open("/dev/zero", O_RDONLY)
        let (blocked, blockedGuest) = try input(from: zero)
        usleep(200_000)
        let pumps = [silent, stuck, idle, blocked]
        #expect(pumps.allSatisfy { $0.wait(until: after(0.001)) == nil })
        let time = seconds {
            for pump in pumps { pump.stop() }
            for pump in pumps { #expect(pump.wait(until: after(5)) == .stopped) }
        }
        #expect(time < 1)
        #expect(flood.wait(10) == true)
        for descriptor in [silentGuest, reader, writer, stuckGuest, source, feed, idleGuest, zero, blockedGuest] { close(descriptor) }
    }

    @Test func theRestIsTakenWithoutWaiting() throws {
        let collector = OutputCollector(limit: 1000)
        let (pump, guest) = try output(to: .collector(collector))
        writeAll(guest, Self.pattern(700))
        pump.takeRest()
        #expect(pump.wait(until: after(2)) == .stopped)
        #expect(difference(of: collector.bytes, from: Self.pattern(700)) == nil)
        close(guest)
    }

    @Test func aGuestThatDoesNotEndItsStreamIsNotWaitedForForEver() throws {
        let (pump, guest) = try output(to: .nothing)
        pump.finish()
        let time = seconds { #expect(pump.wait(until: after(20)) == .stalled) }
        #expect(time > 3 && time < 10)
        close(guest)
        // Nor one that goes on and on.
        let (endless, endlessGuest) = try output(to: .nothing)
        endless.finish()
        let flood = Background { while writeAll(endlessGuest, Self.block) {}; return true }
        #expect(endless.wait(until: after(60)) == .stalled)
        #expect(flood.wait(10) == true)
        close(endlessGuest)
    }

    @Test func descriptorsThatAreSharedKeepTheirFlags() throws {
        let (reader, writer) = pipePair()
        let (source, feed) = pipePair()
        let (ours, theirs) = socketPair()
        let descriptors = [writer, source, ours]
        let before = descriptors.map { fcntl($0, F_GETFL) }
        let pumps = [try output(to: writer), try input(from: source), try output(to: ours)]
        for (_, guest) in pumps { writeAll(guest, [1]) }
        #expect(isReadable(reader, within: 5000))
        #expect(isReadable(theirs, within: 5000))
        #expect(descriptors.map { fcntl($0, F_GETFL) } == before)
        #expect(before.allSatisfy { $0 & O_NONBLOCK == 0 })
        for (pump, guest) in pumps {
            pump.stop()
            #expect(pump.wait(until: after(5)) == .stopped)
            close(guest)
        }
        for descriptor in [reader, writer, source, feed, ours, theirs] { close(descriptor) }
    }

    @Test func aCollectorKeepsTheBeginningAndCountsTheRest() throws {
        let collector = OutputCollector(limit: 100_000)
        let (pump, guest) = try output(to: .collector(collector))
        let bytes = Self.pattern(1 << 20)
        writeAll(guest, bytes)
        close(guest)
        #expect(pump.wait(until: after(10)) == .finished)
        #expect(difference(of: collector.bytes, from: Array(bytes[..<100_000])) == nil)
        #expect(collector.droppedCount == UInt64(bytes.count - 100_000))
        let none = OutputCollector(limit: -1)
        bytes.withUnsafeBytes { none.append($0) }
        #expect(none.bytes == [] && none.droppedCount == UInt64(bytes.count))
    }
}
