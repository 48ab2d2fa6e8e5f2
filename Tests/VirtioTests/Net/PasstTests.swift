import Foundation
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

private let hasPasst = ["/usr/bin", "/usr/local/bin", "/bin"].contains { (path: String) in access(path + "/passt", X_OK) == 0 }

@Suite struct PasstTests {
    /// A program in place of passt, with descriptor 3 as its socket.
    private func withProgram(_ script: String, _ body: (String) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "/windhover-passt-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let program = folder + "/passt"
        try ("#!/bin/sh\n" + script).write(toFile: program, atomically: false, encoding: .utf8)
        chmod(program, 0o755)
        try body(program)
    }

    private func isGone(_ process: pid_t) -> Bool { kill(process, 0) != 0 && errno == ESRCH }

    @Test func whatIsNotInstalledIsNamed() {
        do throws(PasstError) {
            _ = try PasstBackend(program: "no-such-passt")
            Issue.record("it is there")
        } catch {
            #expect(error == .notInstalled("no-such-passt"))
            #expect("\(error)".contains("apt-get install passt"))
        }
    }

    @Test func aPortThatIsInUseIsNamed() throws {
        let taken = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(taken) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                #expect(bind(taken, $0, size) == 0 && listen(taken, 1) == 0 && getsockname(taken, $0, &size) == 0)
            }
        }
        let port = UInt16(bigEndian: address.sin_port)
        let forward = PortForward(host: port, guest: 80)
        do throws(PasstError) {
            _ = try PasstBackend(forwards: [forward])
            Issue.record("the port is free")
        } catch {
            #expect(error == .portUnavailable(forward, errno: EADDRINUSE))
            #expect("\(error)".contains("\(port)"))
        }
    }

    @Test func forwardsAreArguments() {
        #expect(PortForward(host: 8080, guest: 80).arguments == ["-t", "8080:80"])
        #expect(PortForward(.udp, host: 53, guest: 5353).arguments == ["-u", "53:5353"])
    }

    @Test func itGetsASocketAndItsArguments() throws {
        try withProgram("test -S /dev/fd/3 || exit 9\necho \"$@\" >&2; exit 1\n") { program in
            let words = FakePeer.Words()
            let backend = try PasstBackend(arguments: ["-4"], program: program) { words.add($0) }
            let rig = try NetworkRig([backend])
            rig.driver.start([.netStatus])
            #expect(rig.events.run(until: { !words.all.isEmpty }))
            #expect(words.all == ["passt has ended: --foreground --quiet --fd 3 --mtu 15000 -4"])
            #expect(rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0)
        }
    }

    @Test func oneThatEndsIsReaped() throws {
        try withProgram("exec sleep 0\n") { program in
            let backend = try PasstBackend(program: program)
            let process = try #require(backend.processIdentifier)
            let rig = try NetworkRig([backend])
            rig.driver.start([.netStatus])
            #expect(rig.events.run(until: {
                rig.clock.advance(by: 10_000_000)
                return backend.processIdentifier == nil
            }))
            #expect(isGone(process))
        }
    }

    @Test(arguments: ["exec sleep 1000\n", "trap '' TERM\nexec sleep 1000\n"]) func closingEndsIt(script: String) throws {
        try withProgram(script) { program in
            let backend = try PasstBackend(program: program)
            let process = try #require(backend.processIdentifier)
            #expect(!isGone(process))
            usleep(20_000)
            backend.close()
            #expect(isGone(process))
            let other = try #require(try PasstBackend(program: program).processIdentifier)
            #expect(isGone(other), "so does the end of the object")
        }
    }

    @Test func whatItSaysWithoutEndIsNotWaitedFor() throws {
        let flood = "i=0\nwhile [ $i -lt 3000 ]; do echo this is a line of a flood of lines >&2; i=$((i+1)); done\nexit 0\n"
        try withProgram(flood) { program in
            let words = FakePeer.Words()
            let backend = try PasstBackend(program: program) { words.add($0) }
            let rig = try NetworkRig([backend])
            rig.driver.start([.netStatus])
            #expect(rig.events.run(until: { !words.all.isEmpty }))
            #expect(words.all.allSatisfy { $0.utf8.count < 2100 })
        }
    }

    @Test(.enabled(if: hasPasst, "passt is not installed: sudo apt-get install passt")) func whatPasstSaysIsHandedOn() throws {
        let words = FakePeer.Words()
        let rig = try NetworkRig([try PasstBackend(arguments: ["-a", "no-address"]) { words.add($0) }])
        rig.driver.start([.netStatus])
        #expect(rig.events.run(until: { !words.all.isEmpty }))
        #expect(words.all.first?.contains("no-address") == true, "\(words.all)")
    }

    /// A DHCP discovery of a guest's.
    private func discovery(_ address: MACAddress) -> [UInt8] {
        var bootp: [UInt8] = [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78] + .zeros(20) + address.bytes + .zeros(10 + 64 + 128)
        bootp += [0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]
        bootp += .zeros(300 - bootp.count)
        let length = UInt16(bootp.count + 8)
        let udp: [UInt8] = [0, 68, 0, 67, UInt8(length >> 8), UInt8(length & 255), 0, 0] + bootp
        let total = UInt16(udp.count + 20)
        var ip: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 255), 0, 0, 0, 0, 64, 17] + .zeros(6)
        ip += [255, 255, 255, 255]
        var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) { $0 + UInt32(ip[$1]) << 8 + UInt32(ip[$1 + 1]) }
        sum = sum & 0xFFFF + sum >> 16
        (ip[10], ip[11]) = (UInt8(~sum >> 8 & 255), UInt8(~sum & 255))
        return [UInt8](repeating: 255, count: 6) + address.bytes + [8, 0] + ip + udp
    }

    @Test(.enabled(if: hasPasst, "passt is not installed: sudo apt-get install passt")) func passtAnswersADiscovery() throws {
        let words = FakePeer.Words()
        let arguments = ["-4", "-a", "192.0.2.77", "-n", "255.255.255.0", "-g", "192.0.2.1"]
        let backend = try PasstBackend(arguments: arguments) { words.add($0) }
        let process = try #require(backend.processIdentifier)
        let rig = try NetworkRig([backend])
        rig.driver.start([.netMergeableBuffers, .netStatus])
        try rig.give(50)
        try rig.send([discovery(rig.device.address)])
        var offer: [UInt8] = []
        #expect(rig.events.run(until: {
            let frames = ((try? rig.frames()) ?? []).map(\.payload)
            if let answer = frames.first(where: { $0.count > 285 && $0[23] == 17 }) { offer = answer }
            return !offer.isEmpty || !words.all.isEmpty
        }))
        #expect(words.all.isEmpty, "\(words.all)")
        guard offer.count > 285 else { return }
        // Source port 67, a reply, our address; in the options, that it is an offer.
        #expect(Array(offer[34..<36]) == [0, 67] && offer[42] == 2)
        #expect(Array(offer[58..<62]) == [192, 0, 2, 77])
        let options = Array(offer[282...])
        #expect(options.indices.dropLast(2).contains { Array(options[$0..<($0 + 3)]) == [53, 1, 2] })
        kill(process, SIGKILL)
        #expect(rig.events.run(until: { rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0 }))
        #expect(words.all.count == 1)
    }
}
