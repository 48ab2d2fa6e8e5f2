import Testing
import MonitorTesting

@testable import Windhover

/// An object file with one section of interest, made by the format's description.
struct TestModule {
    var name = "virtio_blk"
    var depends = ""
    var aliases: [String] = []
    var softdep: String?
    var signature: [UInt8]?

    var bytes: [UInt8] {
        let texts = ["license=GPL", "depends=\(depends)", "name=\(name)"] + aliases.map { "alias=\($0)" }
            + (softdep.map { ["softdep=\($0)"] } ?? []) + ["nothing"]
        let info = texts.flatMap { text -> [UInt8] in Array(text.utf8) + [0] }
        let names = Array("\0.modinfo\0.shstrtab\0".utf8)
        func little(_ value: Int, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
        func header(name: Int, offset: Int, size: Int) -> [UInt8] {
            little(name, 4) + little(1, 4) + little(0, 16) + little(offset, 8) + little(size, 8) + little(0, 24)
        }
        let table = 64 + info.count + names.count
        var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + little(0, 9) + little(1, 2) + little(62, 2) + little(1, 4)
        file += little(0, 16) + little(table, 8) + little(0, 4) + little(64, 2) + little(0, 4) + little(64, 2) + little(3, 2)
        file += little(2, 2)
        file += info + names
        file += header(name: 0, offset: 0, size: 0) + header(name: 1, offset: 64, size: info.count)
        file += header(name: 10, offset: 64 + info.count, size: names.count)
        if let signature {
            file += signature + little(0, 8) + little(signature.count, 4).reversed()
            file += Array("~Module signature appended~\n".utf8)
        }
        return file
    }
}

@Suite struct KernelModuleTests {
    @Test func saysWhatItIs() throws {
        let bytes = TestModule(name: "virtio_rng", depends: "virtio,virtio-ring", aliases: ["virtio:d00000004v*"]).bytes
        let module = try #require(KernelModule(bytes, fileName: "virtio-rng.ko"))
        #expect(module.name == "virtio_rng")
        #expect(module.dependencies == ["virtio", "virtio_ring"])
        #expect(module.aliases == ["virtio:d00000004v*"])
        #expect(difference(of: module.contents, from: bytes) == nil)
    }

    @Test func whatIsGoodToHaveBefore() throws {
        for (text, names) in [
            ("pre: crc32c", ["crc32c"]), ("pre: a b-c post: d pre: e", ["a", "b_c", "e"]), ("post: a", []), ("a", []), ("", []),
        ] {
            let module = try #require(KernelModule(TestModule(softdep: text).bytes, fileName: "x.ko"))
            #expect(module.softDependencies == names)
        }
    }

    @Test func namesOfFiles() {
        #expect(KernelModule.name(ofFile: "virtio-rng.ko") == "virtio_rng")
        #expect(KernelModule.name(ofFile: "fuse.ko.xz") == "fuse")
        #expect(KernelModule.name(ofFile: "") == "")
        // It becomes a file's name and a word of a line.
        #expect(KernelModule.name(ofFile: "a/../b\nc d:e\tf") == "a")
        #expect(KernelModule.name(ofFile: "a/b\nc d:e\tf") == "abcdef")
    }

    @Test func theSignatureIsLeftOut() throws {
        let plain = TestModule().bytes
        let signed = TestModule(signature: [UInt8](repeating: 7, count: 300)).bytes
        #expect(signed.count == plain.count + 300 + 12 + 28)
        #expect(try difference(of: #require(KernelModule(signed, fileName: "x.ko")).contents, from: plain) == nil)
        #expect(try difference(of: #require(KernelModule(signed, fileName: "x.ko", keepsSignature: true)).contents, from: signed) == nil)
        // A length that leads before the file's beginning is none.
        var wrong = signed
        wrong[signed.count - 28 - 4] = 0xFF
        #expect(try difference(of: #require(KernelModule(wrong, fileName: "x.ko")).contents, from: wrong) == nil)
    }

    /// An alias is a line of a file: what would be two lines or two words is none.
    @Test func aliasesThatAreNone() throws {
        let bytes = TestModule(aliases: ["a b", "c\nalias d e", "", "f"]).bytes
        #expect(try #require(KernelModule(bytes, fileName: "x.ko")).aliases == ["f"])
    }

    @Test func whatIsNoModule() {
        for bytes in [[], [0x7F], Array("#!/bin/sh\n".utf8), [UInt8](repeating: 0, count: 4096)] {
            #expect(KernelModule(bytes, fileName: "x.ko") == nil)
        }
        let bytes = TestModule().bytes
        // The last header's last fields are nobody's concern.
        for count in 0..<(bytes.count - 24) { #expect(KernelModule(Array(bytes[..<count]), fileName: "x.ko") == nil, "\(count)") }
    }

    /// Whatever the bytes, it comes back.
    @Test func bytesThatWereChanged() {
        let bytes = TestModule(depends: "a,b", aliases: ["x"], signature: [1, 2, 3]).bytes
        var random = SeededRandom(seed: 7)
        for _ in 0..<20_000 {
            var changed = bytes
            for _ in 0...Int.random(in: 0...4, using: &random) {
                changed[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            _ = KernelModule(changed, fileName: "x.ko")
        }
        // Each of the headers' bytes at its edges.
        for index in bytes.indices {
            for value in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] {
                var changed = bytes
                changed[index] = value
                _ = KernelModule(changed, fileName: "x.ko")
            }
        }
    }
}

@Suite struct ModuleArchiveTests {
    private func module(_ name: String, _ depends: String = "", _ aliases: [String] = []) -> KernelModule? {
        KernelModule(TestModule(name: name, depends: depends, aliases: aliases).bytes, fileName: "x.ko")
    }

    private func closure(_ wanted: [String], _ modules: [String: String]) -> [String] {
        ModuleArchive.closure(of: wanted) { name in modules[name].flatMap { module(name, $0) } }.map(\.name)
    }

    @Test func eachBehindWhatItNeeds() {
        let modules = ["blk": "ring,virtio", "virtio": "ring", "ring": "", "net": "net_failover,virtio", "net_failover": "failover", "failover": ""]
        #expect(closure(["blk", "net"], modules) == ["ring", "virtio", "blk", "failover", "net_failover", "net"])
        #expect(closure(["nothing", "ring", "ring"], modules) == ["ring"])
    }

    @Test func circlesAndGapsComeToAnEnd() {
        #expect(closure(["a"], ["a": "b", "b": "a,c"]) == ["b", "a"])
        #expect(closure(["a"], ["a": "a"]) == ["a"])
    }

    @Test func theArchive() throws {
        let modules = ModuleArchive.closure(of: ["blk", "net"]) { name in
            switch name {
            case "blk": module("blk", "ring,virtio", ["virtio:d00000002v*"])
            case "net": module("net", "virtio")
            case "virtio": module("virtio", "ring")
            case "ring": module("ring")
            default: nil
            }
        }
        let root = try CPIOReader(ModuleArchive(release: "6.1.0-test", modules: modules).archive)
        func text(_ name: String) -> String? { root["lib/modules/6.1.0-test/" + name].map { String(decoding: $0.data, as: UTF8.self) } }
        #expect(text("modules.order") == "ring.ko\nvirtio.ko\nblk.ko\nnet.ko\n")
        // modprobe loads the last of a line first.
        #expect(text("modules.dep") == "ring.ko:\nvirtio.ko: ring.ko\nblk.ko: virtio.ko ring.ko\nnet.ko: virtio.ko ring.ko\n")
        #expect(text("modules.alias") == "alias virtio:d00000002v* blk\n")
        #expect(difference(of: root["lib/modules/6.1.0-test/blk.ko"]?.data ?? [], from: modules[2].contents) == nil)
        // It may be unpacked over a root that has none of its directories.
        #expect(root.entries.prefix(3).map(\.name) == ["lib", "lib/modules", "lib/modules/6.1.0-test"])
    }

    /// As packages have them, compressed or not, with links that lead elsewhere.
    @Test func picksFromATree() throws {
        let directory = TemporaryDirectory()
        let drivers = directory.path + "/usr/lib/modules/6.1.0-test/kernel/drivers/virtio"
        try HostFile.makeDirectory(drivers)
        try HostFile.create(drivers + "/virtio-ring.ko", with: TestModule(name: "virtio_ring").bytes)
        try HostFile.create(drivers + "/virtio_blk.ko", with: TestModule(name: "virtio_blk", depends: "virtio_ring").bytes)
        try HostFile.create(drivers + "/other.ko", with: TestModule(name: "other").bytes)
        try HostFile.makeLink(directory.path + "/usr/lib/modules/6.1.0-test/build", to: "/")
        try #require(HostCommand(["gzip", drivers + "/virtio_blk.ko"]).run().status == 0)
        let archive = try ModuleArchive(tree: directory.path, release: "6.1.0-test", wanted: ["virtio_blk", "absent"])
        #expect(archive.modules.map(\.name) == ["virtio_ring", "virtio_blk"])
        #expect(difference(of: archive.modules[1].contents, from: TestModule(name: "virtio_blk", depends: "virtio_ring").bytes) == nil)
        #expect(try ModuleArchive(tree: directory.path, release: "6.2", wanted: ["virtio_blk"]).modules.isEmpty)
    }
}
