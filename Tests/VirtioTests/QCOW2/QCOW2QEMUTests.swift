import Foundation
import Testing
import MonitorTesting

@testable import Virtio

/// QEMU's own tools on this host.
enum QEMUTools {
    static func find(_ tool: String) -> String? {
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(tool)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    static let isInstalled = find("qemu-img") != nil && find("qemu-io") != nil

    /// - Returns: exit status and output.
    @discardableResult
    static func run(_ tool: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: find(tool) ?? tool)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    static func image(_ arguments: String...) throws {
        let result = try run("qemu-img", arguments)
        #expect(result.status == 0, "qemu-img \(arguments.joined(separator: " ")): \(result.output)")
    }
}

/// Against the program that defines the format.
@Suite(.enabled(if: QEMUTools.isInstalled, "qemu-img and qemu-io are not installed: apt-get install qemu-utils"))
struct QCOW2QEMUTests {
    private static let size = 1 << 20 | 512

    /// Random sectors, some of them zero.
    private static func content(seed: UInt64) -> [UInt8] {
        var random = SeededRandom(seed: seed)
        var bytes = Array(repeating: UInt8(0), count: size)
        for start in stride(from: 0, to: size, by: 4096) where random.oneIn(2) {
            let end = min(start + 4096, size)
            let byte = UInt8(truncatingIfNeeded: random.next() | 1)
            bytes.replaceSubrange(start..<end, with: repeatElement(byte, count: end - start))
        }
        return bytes
    }

    @Test(arguments: [
        "compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M", "cluster_size=4K,refcount_bits=1",
        "refcount_bits=64,cluster_size=512", "preallocation=metadata", "preallocation=full,cluster_size=8K",
        "lazy_refcounts=on", "refcount_bits=2,cluster_size=1K",
    ]) func imagesOfQEMUs(options: String) throws {
        let directory = try ImageDirectory()
        let (raw, path) = (directory.path("raw"), directory.path("disk.qcow2"))
        var content = Self.content(seed: 11)
        try Data(content).write(to: URL(fileURLWithPath: raw))
        // Preallocated images are written into, as conversion does not go with all of that.
        try QEMUTools.image("create", "-q", "-f", "qcow2", "-o", options, path, "\(Self.size)")
        try QEMUTools.image("convert", "-n", "-f", "raw", "-O", "qcow2", raw, path)
        #expect(try difference(of: QCOW2Image.open(path: path, readOnly: true).bytes(at: 0, count: Self.size), from: content) == nil)
        do {
            var model = DiskModel(seed: 5, size: Self.size, below: content)
            let image = try QCOW2Image.open(path: path)
            for _ in 0..<40 { try model.change(image, most: 64 << 10) }
            content = model.content
        }
        try compare(path, content, directory)
    }

    @Test(arguments: QCOW2ModelTests.kinds) func imagesOfOurs(kind: ImageKind) throws {
        let directory = try ImageDirectory()
        let path = directory.path("disk.qcow2")
        let below = kind.hasBacking ? Self.content(seed: 3) : []
        var parameters = kind.parameters(Self.size)
        if kind.hasBacking {
            try Data(below).write(to: URL(fileURLWithPath: directory.path("below")))
            (parameters.backingName, parameters.backingFormat) = (directory.path("below"), "raw")
        }
        try QCOW2Image.create(path: path, parameters)
        var model = DiskModel(seed: 9, size: Self.size, below: below)
        for _ in 0..<2 {
            let image = try QCOW2Image.open(path: path, backing: kind.hasBacking ? .image(MemoryDisk(below)) : .unspecified)
            for _ in 0..<30 { try model.change(image, most: 64 << 10) }
        }
        try compare(path, model.content, directory)
        // And QEMU goes on with it.
        #expect(try QEMUTools.run("qemu-io", ["-f", "qcow2", "-c", "write -P 7 100k 300k", path]).status == 0)
        model.content.replaceSubrange(100 << 10..<400 << 10, with: repeatElement(7, count: 300 << 10))
        let image = try QCOW2Image.open(
            path: path, readOnly: true, backing: kind.hasBacking ? .image(MemoryDisk(below)) : .unspecified)
        #expect(try difference(of: image.bytes(at: 0, count: Self.size), from: model.content) == nil)
    }

    /// The image is sound to QEMU, without a lost cluster, and reads as `content` to it.
    private func compare(_ path: String, _ content: [UInt8], _ directory: ImageDirectory) throws {
        let raw = directory.path("expected")
        try Data(content).write(to: URL(fileURLWithPath: raw))
        try QEMUTools.image("check", "-f", "qcow2", path)
        try QEMUTools.image("compare", "-f", "raw", "-F", "qcow2", raw, path)
    }

    @Test func compressedImages() throws {
        let directory = try ImageDirectory()
        let (raw, path) = (directory.path("raw"), directory.path("disk.qcow2"))
        var content = Self.content(seed: 21)
        for index in 0..<20_000 { content[index] = UInt8(truncatingIfNeeded: index &* index >> 3) }
        try Data(content).write(to: URL(fileURLWithPath: raw))
        for clusterSize in ["512", "64K", "2M"] {
            try QEMUTools.image(
                "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=\(clusterSize)", raw, path)
            do {
                let image = try QCOW2Image.open(path: path, inflater: ReferenceInflater())
                #expect(try difference(of: image.bytes(at: 0, count: Self.size), from: content) == nil)
                var model = DiskModel(seed: 5, size: Self.size, below: content)
                for _ in 0..<30 { try model.change(image, most: 100 << 10) }
                try image.flush()
                #expect(try difference(of: image.bytes(at: 0, count: Self.size), from: model.content) == nil)
                try Data(model.content).write(to: URL(fileURLWithPath: directory.path("model")))
            }
            try QEMUTools.image("check", "-f", "qcow2", path)
            try QEMUTools.image("compare", "-f", "raw", "-F", "qcow2", directory.path("model"), path)
        }
    }

    /// Internal snapshots stay what they were while the disk is written.
    @Test(arguments: ["cluster_size=64K", "cluster_size=512", "cluster_size=4K,compat=0.10"])
    func snapshotsAreLeftAlone(options: String) throws {
        let directory = try ImageDirectory()
        let (raw, path) = (directory.path("raw"), directory.path("disk.qcow2"))
        let content = Self.content(seed: 31)
        try Data(content).write(to: URL(fileURLWithPath: raw))
        try QEMUTools.image("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
        try QEMUTools.image("snapshot", "-c", "before", path)
        var model = DiskModel(seed: 6, size: Self.size, below: content)
        do {
            let image = try QCOW2Image.open(path: path)
            for _ in 0..<60 { try model.change(image, most: 100 << 10) }
        }
        try compare(path, model.content, directory)
        try QEMUTools.image("snapshot", "-a", "before", path)
        try compare(path, content, directory)
        try QEMUTools.image("snapshot", "-d", "before", path)
        try compare(path, content, directory)
    }

    @Test func bitmapsAreGivenUp() throws {
        let directory = try ImageDirectory()
        let path = directory.path("disk.qcow2")
        try QEMUTools.image("create", "-q", "-f", "qcow2", path, "1M")
        try QEMUTools.image("bitmap", "--add", path, "changes")
        do {
            let image = try QCOW2Image.open(path: path)
            try image.put([1], at: 0)
        }
        // What the bitmaps took is not freed by us: QEMU calls that a leak, status 3.
        #expect([0, 3].contains(try QEMUTools.run("qemu-img", ["check", "-f", "qcow2", path]).status))
    }

    @Test(arguments: ["data", "extended", "zstd"]) func refused(what: String) throws {
        let directory = try ImageDirectory()
        let path = directory.path("disk.qcow2")
        let options = [
            "data": ["-o", "data_file=\(directory.path("data"))"], "extended": ["-o", "extended_l2=on"],
            "zstd": ["-o", "compression_type=zstd"],
        ]
        let arguments = ["create", "-q", "-f", "qcow2"] + options[what]! + [path, "1M"]
        // Not every build of it has all of them.
        guard try QEMUTools.run("qemu-img", arguments).status == 0 else { return }
        for readOnly in [false, true] {
            do {
                _ = try QCOW2Image.open(path: path, readOnly: readOnly)
                Issue.record("\(what) was opened")
            } catch { #expect("\(error)".contains("not supported"), "\(error)") }
        }
    }
}
