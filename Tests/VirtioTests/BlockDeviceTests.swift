import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct BlockDeviceTests {
    private let directory = ScratchDirectory()
    private let capacity = 256 << 10

    @Test(arguments: BlockBackend.here, ringKinds) func readsAndWrites(backend: BlockBackend, ring: FeatureSet) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity, ring: ring)
        #expect(try difference(of: rig.read(0, 512), from: pattern(0..<512)) == nil)
        #expect(try difference(of: rig.read(7, 4096), from: pattern(7 * 512..<7 * 512 + 4096)) == nil)
        let data = [UInt8]((0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 7) })
        #expect(try rig.write(100, data) == 0)
        #expect(try difference(of: rig.read(100, 8192), from: data) == nil)
        #expect(try difference(of: rig.read(99, 512), from: pattern(99 * 512..<100 * 512)) == nil)
        #expect(try difference(of: rig.read(116, 512), from: pattern(116 * 512..<117 * 512)) == nil)
        // The last sector, and the whole disk.
        #expect(try rig.write(511, [UInt8](repeating: 0xEE, count: 512)) == 0)
        let all = try rig.read(0, capacity)
        #expect(all.count == capacity && all[511 * 512] == 0xEE && all[100 * 512..<116 * 512].elementsEqual(data))
        #expect(try rig.flush() == 0)
        #expect(rig.transport.takeInterrupts().used)
        #expect(rig.statistic("reads") == 6 && rig.statistic("writes") == 2 && rig.statistic("flushes") == 1)
        #expect(rig.statistic("bytesWritten") == 8704 && rig.statistic("errors") == 0)
    }

    /// Framing is the driver's choice: the header, the data and the status may be cut anywhere.
    /// Source: [VIRTIO1.2 §2.6.4].
    @Test(arguments: BlockBackend.here) func buffersMayBeCutAnywhere(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        let header = BlockRig.header(0, 3)
        let split = try rig.send([Array(header[..<3]), Array(header[3..<15]), [header[15]]], [100, 411, 2])
        #expect(split.status == 0 && split.data == pattern(1536..<2048) && split.written == 513)
        let data = [UInt8](repeating: 0x5A, count: 1024)
        // Header and data in one buffer, then the rest of the data.
        #expect(try rig.send([BlockRig.header(1, 5) + data[..<1], Array(data[1..<700]), Array(data[700...])]).status == 0)
        // Status behind data in one buffer, of an odd address.
        let one = try rig.send([BlockRig.header(0, 5)], [1025])
        #expect(one.status == 0 && one.data == data)
    }

    @Test(arguments: BlockBackend.here) func manyAtOnce(backend: BlockBackend) throws {
        var options = BlockOptions()
        options.queueCount = 4
        let rig = try BlockRig(backend, in: directory, capacity: capacity, options: options, ring: .indirectDescriptors)
        #expect(rig.transport.registers.queueCount == 4)
        for round in 0..<3 {
            for queue in 0..<4 {
                for index in 0..<100 {
                    let sector = UInt64(index * 4 + queue)
                    let isWrite = round == 1
                    let id = try rig.driver.queues[queue].add(
                        readable: isWrite
                            ? [BlockRig.header(1, sector), [UInt8](repeating: UInt8(index), count: 512)]
                            : [BlockRig.header(0, sector)],
                        writable: isWrite ? [1] : [512, 1])
                    #expect(id != nil)
                }
                try rig.driver.queues[queue].kick()
            }
            for queue in 0..<4 {
                let done = try rig.completions(100, queue: queue)
                #expect(done.count == 100)
                for completion in done {
                    #expect(completion.bytes.last == 0)
                    if round == 2 { #expect(Set(completion.bytes.dropLast()).count == 1) }
                }
            }
        }
        #expect(rig.statistic("reads") == 800 && rig.statistic("writes") == 400)
        let end = try rig.read(0, 400 * 512)
        #expect((0..<400).allSatisfy { end[$0 * 512] == UInt8($0 / 4) })
    }

    @Test(arguments: BlockBackend.here) func discardAndZeroes(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(10, 20)]).status == 0)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(64, 16, flags: 1)]).status == 0)
        let all = try rig.read(0, 64 << 10)
        #expect(all[10 * 512..<30 * 512].allSatisfy { $0 == 0 } && all[64 * 512..<80 * 512].allSatisfy { $0 == 0 })
        #expect(difference(of: all[..<(10 * 512)], from: pattern(0..<10 * 512)) == nil)
        #expect(difference(of: all[30 * 512..<64 * 512], from: pattern(30 * 512..<64 * 512)) == nil)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8) + BlockRig.segment(256, 256)]).status == 0)
        #expect(try difference(of: rig.read(8, 1024), from: pattern(8 * 512..<10 * 512)) == nil)
        #expect(rig.statistic("discards") == 1 && rig.statistic("writeZeroes") == 2)
        // An empty range is as good as another.
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(512, 0)]).status == 0)
    }

    /// Source: [VIRTIO1.2 §5.2.6.2].
    @Test func unknownFlagsAndUnmappingDiscards() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8, flags: 1)]).status == 2)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8, flags: 2)]).status == 2)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(0, 8, flags: 2)]).status == 2)
        #expect(image.calls.isEmpty)
    }

    @Test func serialNumber() throws {
        var options = BlockOptions()
        options.serial = "a disk's serial number"
        let rig = try BlockRig(MemoryImage(capacity: capacity), options)
        let full = try rig.send([BlockRig.header(8)], [20, 1])
        #expect(full.status == 0 && full.data == Array("a disk's serial numb".utf8) && full.written == 21)
        options.serial = "short"
        let short = try BlockRig(MemoryImage(capacity: capacity), options).send([BlockRig.header(8)], [20, 1])
        #expect(short.data == Array("short".utf8) + [UInt8](repeating: 0, count: 15))
        // Less room, more room.
        #expect(try rig.send([BlockRig.header(8)], [4, 1]).data == Array("a di".utf8))
        let more = try rig.send([BlockRig.header(8)], [30, 1])
        #expect(more.data.prefix(20).elementsEqual("a disk's serial numb".utf8) && more.written == 20 && more.status == 0)
    }

    @Test func configurationSpace() throws {
        var options = BlockOptions()
        options.queueCount = 3
        let rig = try BlockRig(MemoryImage(capacity: 3 << 20, preferredBlockSize: 65_536), options)
        func word(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
            rig.transport.readConfiguration(offset: offset, width: width)
        }
        #expect(word(0, .long) == 6144 && word(4, .long) == 0)
        #expect(word(12, .long) == 254, "seg_max")
        #expect(word(20, .long) == 512)
        #expect(word(24, .byte) == 3 && word(25, .byte) == 0, "physical blocks of 4096 bytes")
        #expect(word(26, .word) == 8 && word(28, .long) == 128)
        #expect(word(32, .byte) == 1 && word(33, .byte) == 0, "a write cache")
        #expect(word(34, .word) == 3)
        #expect(word(36, .long) == 1 << 22 && word(40, .long) == 32 && word(44, .long) == 128)
        #expect(word(48, .long) == 1 << 16 && word(52, .long) == 1 && word(56, .byte) == 1)
        for offset in 57..<300 { #expect(word(UInt64(offset), .byte) == 0) }
        // Nothing but the write cache is the driver's to write.
        for offset in 0..<300 as Range<UInt64> where offset != 32 {
            rig.transport.writeConfiguration(offset: offset, width: .long, value: 0)
        }
        rig.transport.writeConfiguration(offset: .max - 2000, width: .long, value: .max)
        #expect(word(0, .long) == 6144 && word(32, .byte) == 1 && word(36, .long) == 1 << 22)
    }

    @Test func whatIsOffered() throws {
        let writable = BlockDevice(image: MemoryImage(capacity: 512), events: ManualEvents(), clock: FakeClock()).features
        #expect(writable.contains(BlockFeature.flush) && writable.contains(BlockFeature.writeCacheControl))
        #expect(writable.contains(BlockFeature.discard) && !writable.contains(BlockFeature.readOnly))
        #expect(!writable.contains(BlockFeature.multipleQueues))
        let readOnly = BlockDevice(
            image: MemoryImage(capacity: 512, isReadOnly: true), events: ManualEvents(), clock: FakeClock()
        ).features
        #expect(readOnly.contains(BlockFeature.readOnly) && readOnly.contains(BlockFeature.flush))
        #expect(!readOnly.contains(BlockFeature.discard) && !readOnly.contains(BlockFeature.writeZeroes))
        var options = BlockOptions()
        (options.queueCount, options.queueSize) = (1000, 0)
        let odd = BlockDevice(image: MemoryImage(capacity: 512), options: options, events: ManualEvents(), clock: FakeClock())
        #expect(odd.queueSizes == [UInt16](repeating: 2, count: 16))
    }

    @Test func aReadOnlyDiskIsNotWritten() throws {
        let image = MemoryImage(capacity: capacity, isReadOnly: true)
        let rig = try BlockRig(image)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 512)) == 1)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8)]).status == 1)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(0, 8)]).status == 1)
        #expect(image.calls.isEmpty && image.bytes == pattern(0..<capacity))
        #expect(try rig.flush() == 0)
        #expect(try difference(of: rig.read(0, 512), from: pattern(0..<512)) == nil)
    }

    // MARK: The write cache

    @Test(arguments: BlockBackend.here) func withoutFlushesNothingIsCached(backend: BlockBackend) throws {
        let features = BlockRig.allFeatures.subtracting([BlockFeature.flush, BlockFeature.writeCacheControl])
        let rig = try BlockRig(backend, in: directory, capacity: capacity, features: features)
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 0)
        #expect(try rig.write(4, [UInt8](repeating: 9, count: 4096)) == 0)
        #expect(try difference(of: rig.read(4, 4096), from: [UInt8](repeating: 9, count: 4096)) == nil)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(10, 2)]).status == 0)
        if let image = rig.device.image as? MemoryImage {
            #expect(image.calls == ["write 4", "flush", "read 4", "zero 10+2", "flush"])
        }
    }

    @Test func theDriverSwitchesTheCache() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(image.calls == ["write 0"] && image.isDirty)
        rig.transport.writeConfiguration(offset: 32, width: .byte, value: 0)
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 0)
        #expect(try rig.write(1, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(!image.isDirty)
        rig.transport.writeConfiguration(offset: 32, width: .byte, value: 1)
        #expect(try rig.write(2, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(image.isDirty)
        #expect(try rig.flush() == 0)
        #expect(!image.isDirty && image.calls.last == "flush")
        // A reset brings the cache back; what the driver says before DRIVER_OK counts.
        rig.transport.writeConfiguration(offset: 32, width: .byte, value: 0)
        rig.transport.writeStatus([])
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 1)
        rig.transport.writeConfiguration(offset: 32, width: .byte, value: 0)
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 0)
        rig.transport.writeStatus([.acknowledge, .driver])
        rig.transport.writeFeatures(BlockRig.allFeatures.union(.version1).intersection(rig.device.features))
        rig.transport.writeStatus([.acknowledge, .driver, .featuresOK])
        rig.transport.writeStatus([.acknowledge, .driver, .featuresOK, .driverOK])
        #expect(rig.transport.readStatus() == [.acknowledge, .driver, .featuresOK, .driverOK])
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 0)
    }

    @Test func withoutTheFeatureTheCacheIsNotTheDriversToSwitch() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image, features: BlockRig.allFeatures.subtracting(BlockFeature.writeCacheControl))
        rig.transport.writeConfiguration(offset: 32, width: .byte, value: 0)
        #expect(rig.transport.readConfiguration(offset: 32, width: .byte) == 1)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(image.calls == ["write 0"])
    }

    // MARK: Errors of the host

    @Test(arguments: [ENOSPC, EIO, EDQUOT, 0]) func errorsReachTheGuest(code: Int32) throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(try rig.flush() == 0)
        image.fail(with: .host(errno: code))
        #expect(try rig.write(0, [UInt8](repeating: 2, count: 512)) == 1)
        let failed = try rig.send([BlockRig.header(0)], [512, 1])
        #expect(failed.status == 1 && failed.written == 0)
        #expect(try rig.flush() == 1)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8)]).status == 1)
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(0, 8)]).status == 1)
        #expect(rig.statistic("errors") == 5)
        image.fail(with: .corrupt("a table"))
        #expect(try rig.send([BlockRig.header(0)], [512, 1]).status == 1)
        image.fail(with: nil)
        // What was flushed is there, and the disk goes on.
        #expect(try difference(of: rig.read(0, 512), from: [UInt8](repeating: 1, count: 512)) == nil)
        #expect(try rig.write(1, [UInt8](repeating: 3, count: 512)) == 0)
        #expect(!rig.needsReset)
    }

    /// Somebody makes the file shorter under the machine.
    @Test(arguments: BlockBackend.here(.fileThreads, .fileRing, .directThreads, .directRing, .fileCached))
    func aFileThatIsCutIsAnError(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        #expect(truncate(directory.path + "/disk.raw", 8192) == 0)
        #expect(try rig.send([BlockRig.header(0, 0)], [8192, 1]).status == 0)
        #expect(try rig.send([BlockRig.header(0, 8)], [8192, 1]).status == 1)
        #expect(try rig.send([BlockRig.header(0, 100)], [4096, 1]).status == 1)
        #expect(rig.statistic("errors") == 2)
    }
}
