import Testing
import VMCore

@testable import Boot

/// Changes images at random and loads them: whatever they have become, they load or throw, and nothing traps.
/// The seed of a failing run is in its test's name.
@Suite struct MutationTests {
    private static let corpus: [(String, [UInt8])] = {
        let elf = TestELF(notes: [TestELF.linuxNote, TestELF.pvhNote(0x100_0001)])
        var images = [("elf64", elf.bytes)]
        images.append(("elf32", TestELF(is64Bit: false, machine: 3, notes: [TestELF.pvhNote(0x100_0001)]).bytes))
        for packing in Packed.all {
            let inner = elf.bytes
            let packed = packing.pack(inner)
            var image = TestBzImage()
            image.payload = packing.sizeIsInside ? packed : Packed.withSize(packed, inner.count)
            images.append(("bzImage \(packing.name)", image.bytes))
            images.append((packing.name, packed))
        }
        let header: [UInt32] = [0x1BAD_B002, 0x1_0000, 0xE451_4FFE, 0x10_0000, 0x10_0000, 0, 0x10_1000, 0x10_0020]
        images.append(
            (
                "multiboot 1",
                header.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } } + [0, 0, 0, 0]
            ))
        var header2: [UInt32] = [0xE852_50D6, 0, 64, 0]
        header2[3] = 0 &- header2[0] &- header2[2]
        header2 += [2, 24, 0x10_0000, 0x10_0000, 0, 0x10_1000, 3, 12, 0x10_0030, 0, 0, 8]
        images.append(
            ("multiboot 2", header2.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }))
        return images
    }()

    /// Values that arithmetic trips over.
    private static let interesting: [UInt64] = [
        0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, .max >> 1, .max,
        .max - 7, 0xC000_0000, 0x100_0000, 0xA_0000,
    ]

    private static func mutate(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...8, using: &generator) {
            guard !bytes.isEmpty else { break }
            // Headers are at the front: half of the changes go there.
            let reach = Bool.random(using: &generator) ? min(bytes.count, 0x300) : bytes.count
            let index = Int.random(in: 0..<reach, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: bytes[index] = UInt8.random(in: .min ... .max, using: &generator)
            case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 2, 3:
                let value = interesting.randomElement(using: &generator) ?? 0
                let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
                for offset in 0..<width where index + offset < bytes.count {
                    bytes[index + offset] = UInt8(truncatingIfNeeded: value >> UInt64(8 * offset))
                }
            default: if Int.random(in: 0..<8, using: &generator) == 0 { bytes.removeLast(bytes.count - index) }
            }
        }
        return bytes
    }

    @Test(arguments: 0..<16 as Range<UInt64>) func nothingTraps(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var loaded = 0
        for round in 0..<60 {
            for (_, bytes) in Self.corpus {
                let mutated = Self.mutate(bytes, &generator)
                let memory = try GuestMemory(size: 32 << 20)
                var configuration = BootConfiguration()
                configuration.unpacking = round % 2 == 0 ? .host : .guest
                configuration.entry = BootConfiguration.Entry.allCases.randomElement(using: &generator) ?? .automatic
                configuration.initrds = [ImageBytes([1, 2, 3])]
                do throws(BootError) {
                    let entry = try BootImage(ImageBytes(mutated)).load(into: memory, configuration)
                    _ = entry.initialState()
                    loaded += 1
                } catch {
                    #expect(!error.description.isEmpty)
                }
            }
        }
        // A corpus that never loads any more tests nothing.
        #expect(loaded > 50)
    }
}
