import Foundation
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

private let canUseTap = geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0

/// A network of a test's own: a namespace that one thread has, and that goes with it.
private func inNetworkOfItsOwn(_ body: @escaping @Sendable () throws -> Void) throws {
    final class Outcome: @unchecked Sendable { var error: (any Error)?; var isRefused = false }
    let outcome = Outcome()
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        defer { done.signal() }
        // Its declaration asks for _GNU_SOURCE. CLONE_NEWNET.
        guard let symbol = dlsym(nil, "unshare"),
            unsafeBitCast(symbol, to: (@convention(c) (Int32) -> Int32).self)(0x4000_0000) == 0
        else {
            outcome.isRefused = true
            return
        }
        do { try body() } catch { outcome.error = error }
    }
    done.wait()
    if outcome.isRefused { print("this host gives no network namespaces: skipped") }
    if let error = outcome.error { throw error }
}

/// The host's side of an interface: what a program with a packet socket sees and sends.
private final class PacketSocket {
    private let descriptor: Int32
    /// A type for local experiments, so that the host's own frames are told apart.
    static let type: [UInt8] = [0x88, 0xB5]

    init(_ name: String) {
        descriptor = socket(17, Int32(SOCK_RAW.rawValue), Int32(UInt16(0x88B5).bigEndian))
        var address = [UInt8](repeating: 0, count: 20)
        address[0] = 17
        address[2...3] = [0x88, 0xB5]
        withUnsafeBytes(of: if_nametoindex(name)) { address.replaceSubrange(4..<8, with: $0) }
        let result = address.withUnsafeBytes {
            bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20)
        }
        #expect(descriptor >= 0 && result == 0)
    }
    deinit { close(descriptor) }

    func send(_ frame: [UInt8]) { #expect(Glibc.send(descriptor, frame, frame.count, 0) == frame.count) }

    /// The next frame of ours, within two seconds.
    func receive() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 70_000)
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 2000) == 1 else { return nil }
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count > 0 ? Array(buffer[..<count]) : nil
    }
}

private func ip(_ words: String...) -> Bool {
    var child: pid_t = 0
    var arguments: [UnsafeMutablePointer<CChar>?] = (["ip"] + words).map { strdup($0) } + [nil]
    defer { for pointer in arguments { free(pointer) } }
    guard posix_spawnp(&child, "ip", nil, nil, &arguments, environ) == 0 else { return false }
    var status: Int32 = 0
    return waitpid(child, &status, 0) == child && status == 0
}

private func frame(_ number: Int, count: Int = 200) -> [UInt8] {
    [UInt8](repeating: 255, count: 6) + [2, 0, 0, 1, 2, 3] + PacketSocket.type + [UInt8].frame(number, count: count - 14)
}

extension NetworkRig {
    /// Our frames among those that came, within two seconds.
    fileprivate func nextFrame() throws -> [UInt8]? {
        var found: [UInt8]?
        _ = events.run(until: {
            found = (try? frames())?.first { Array($0.payload[12..<14]) == PacketSocket.type }?.payload
            return found != nil
        }, milliseconds: 2000)
        return found
    }
}

@Suite(.enabled(if: canUseTap, "tap devices take root and /dev/net/tun")) struct TapTests {
    @Test func framesGoBothWays() throws {
        try inNetworkOfItsOwn {
            let rig = try NetworkRig([try TapBackend(name: "wh0")])
            let host = PacketSocket("wh0")
            rig.driver.start([.netMergeableBuffers, .netChecksum, .netGuestChecksum, .netGuestTSO4, .netHostTSO4, .eventIndex])
            try rig.give(100)
            for number in 0..<20 {
                try rig.send([frame(number, count: 60 + number * 70)])
                #expect(difference(of: host.receive() ?? [], from: frame(number, count: 60 + number * 70)) == nil)
                host.send(frame(number, count: 60 + number * 70))
                #expect(try difference(of: rig.nextFrame() ?? [], from: frame(number, count: 60 + number * 70)) == nil)
            }
        }
    }

    /// A segment that the guest leaves whole, with the header that says how to cut it, arrives at the host as one.
    @Test func segmentsAreLeftToTheHost() throws {
        try inNetworkOfItsOwn {
            let rig = try NetworkRig([try TapBackend(name: "wh0")])
            let host = PacketSocket("wh0")
            rig.driver.start([.netChecksum, .netHostTSO4])
            // No frame of a type that is cut: refused by the kernel, and counted.
            try rig.send([frame(1, count: 5000)], header: [1, 99, 54, 0, 0xDC, 5, 34, 0, 16, 0, 0, 0])
            #expect(rig.count("sendsRefused") == 1)
            // Checksums that point behind the frame likewise.
            try rig.send([frame(1)], header: [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0])
            #expect(rig.count("sendsRefused") == 2)
            try rig.send([frame(2, count: 5000)])
            #expect(difference(of: host.receive() ?? [], from: frame(2, count: 5000)) == nil)
        }
    }

    @Test func anInterfaceThatIsDownDropsAndComesBack() throws {
        try inNetworkOfItsOwn {
            let rig = try NetworkRig([try TapBackend(name: "wh0")])
            let host = PacketSocket("wh0")
            rig.driver.start([.netMergeableBuffers])
            try rig.give(100)
            guard ip("link", "set", "wh0", "down") else { return }
            rig.events.poll()
            try rig.send([frame(1), frame(2)])
            #expect(rig.count("framesWhileDown") == 2 && rig.count("sendsLinkDown") == 2)
            #expect(rig.events.run(limit: 20) < 20)
            #expect(ip("link", "set", "wh0", "up"))
            _ = host.receive()  // the error that the socket has for the interface that went
            try rig.send([frame(3)])
            #expect(host.receive() == frame(3))
            host.send(frame(4))
            #expect(try rig.nextFrame() == frame(4))
        }
    }

    @Test func anInterfaceThatIsDeletedIsALinkThatIsDown() throws {
        try inNetworkOfItsOwn {
            for notices in ["idle", "sending"] {
                let rig = try NetworkRig([try TapBackend(name: "wh0")])
                rig.driver.start([.netMergeableBuffers, .netStatus])
                try rig.give(notices == "idle" ? 100 : 0)
                guard ip("link", "del", "wh0") else { return }
                if notices == "idle" {
                    #expect(rig.events.run(until: { rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0 }))
                } else {
                    try rig.send([frame(0)])
                    #expect(rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0)
                }
                #expect(!rig.events.poll(), "what is gone is not watched")
                _ = try rig.transmit.completions()
                try rig.send([frame(1), frame(2)])
                #expect(try rig.transmit.completions().count == 2)
                #expect(rig.count("sendsLinkDown") >= 2 && rig.count("linkFailures") == 1)
                rig.driver.start([])
                try rig.send([frame(1)])
                #expect(try rig.transmit.completions().count == 1)
            }
        }
    }

    @Test func severalQueuesAreOneInterface() throws {
        try inNetworkOfItsOwn {
            let links = try TapBackend.queues(2, name: "wh0")
            let rig = try NetworkRig(links)
            let host = PacketSocket("wh0")
            rig.driver.start([.netMergeableBuffers, .netControlQueue, .netMultiqueue])
            try rig.give(200)
            for number in 0..<40 {
                host.send(frame(number))
                #expect(try rig.nextFrame() == frame(number), "one queue in use gets all")
            }
            let control = rig.driver.queues[4]
            _ = try control.add(readable: [[4, 0], [2, 0]], writable: [1])
            try control.kick()
            rig.events.run()
            #expect(try control.completions().first?.bytes == [0])
            for pair in 0..<2 {
                _ = try rig.driver.queues[pair * 2 + 1].add(readable: [.zeros(12) + frame(pair)])
                rig.driver.transport.notify(queue: UInt16(pair * 2 + 1))
                rig.events.run()
                #expect(host.receive() == frame(pair))
            }
            rig.driver.start([.netMergeableBuffers])
            try rig.give(10)
            host.send(frame(7))
            #expect(try rig.nextFrame() == frame(7))
        }
    }

    @Test func errorsNameTheWayOut() throws {
        try inNetworkOfItsOwn {
            func failure(_ name: String, queues: Int = 1) -> TapError? {
                do throws(TapError) {
                    _ = try TapBackend.queues(queues, name: name)
                    return nil
                } catch { return error }
            }
            for name in ["", "sixteen-letters-", "a/b", "a b", "..", "wh%d"] { #expect(failure(name) == .badName(name)) }
            #expect(failure("lo") == .notATap("lo", queues: 1))
            let tap = try TapBackend(name: "wh0")
            #expect(failure("wh0") == .busy("wh0"))
            withExtendedLifetime(tap) {}
            #expect(failure("fifteen-letters") == nil)
            if ip("tuntap", "add", "wh1", "mode", "tap") {
                #expect(failure("wh1", queues: 2) == .notATap("wh1", queues: 2))
                #expect(failure("wh1") == nil)
            }
        }
    }
}

@Suite struct TapErrorTests {
    @Test func theirWordsNameTheWayOut() {
        #expect("\(TapError.doesNotExist("tap0"))".contains("sudo ip tuntap add tap0 mode tap user $USER"))
        #expect("\(TapError.notPermitted("tap0"))".contains("sudo ip tuntap add tap0 mode tap user $USER"))
        #expect("\(TapError.noTapDriver)".contains("/dev/net/tun"))
        #expect("\(TapError.notATap("tap0", queues: 4))".contains("multi_queue"))
        #expect("\(TapError.busy("tap0"))".contains("in use"))
        #expect("\(TapError.badName("x/y"))".contains("\"x/y\""))
        #expect("\(TapError.host(call: "TUNSETIFF", name: "tap0", errno: ENOMEM))".contains("TUNSETIFF"))
    }
}
