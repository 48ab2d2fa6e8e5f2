package import VMCore
package import X86

/// Parts of a vCPU's state, each by itself and without a copy of the rest: what the differential tests set and read for
/// every instruction they run.
extension SoftVCPU {
    /// Whether instructions of this feature execute; the rest raise #UD.
    package static func has(_ feature: Feature) -> Bool { CPU.has(feature) }

    package var generalRegisters: GeneralRegisters {
        get { cpu.generalState }
        set {
            cpu.generalState = newValue
            cpu.refreshAccessMode()
        }
    }

    package var systemRegisters: SystemRegisters { cpu.systemState }

    package func setSystemRegisters(_ system: SystemRegisters) throws(EngineError) {
        try cpu.setSystem(system)
        cpu.s.runState = 0
        cpu.s.shadow = 0
        cpu.s.pendingDebug = 0
    }

    package var cr2: UInt64 { cpu.s.cr2 }
    package var privilegeLevel: UInt8 { cpu.s.cpl }
    package var codeSelector: UInt16 { cpu.segment(SegmentIndex.cs).selector }

    /// The hidden bases of FS and GS.
    package var fsBase: UInt64 { cpu.segmentBase(SegmentIndex.fs) }
    package var gsBase: UInt64 { cpu.segmentBase(SegmentIndex.gs) }

    package func setBases(fs: UInt64, gs: UInt64) {
        guard cpu.segmentBase(SegmentIndex.fs) != fs || cpu.segmentBase(SegmentIndex.gs) != gs else { return }
        var segment = cpu.segment(SegmentIndex.fs)
        segment.base = fs
        cpu.setSegment(SegmentIndex.fs, segment)
        segment = cpu.segment(SegmentIndex.gs)
        segment.base = gs
        cpu.setSegment(SegmentIndex.gs, segment)
        cpu.segmentsChanged()
    }

    /// The FXSAVE64 image: 512 bytes. MXCSR_MASK is the processor's own.
    package func setFXSaveImage(_ image: UnsafeRawPointer) {
        for offset in stride(from: 0 as UInt, to: 416, by: 8) {
            Host.store(unsafe image.loadUnaligned(fromByteOffset: Int(offset), as: UInt64.self), cpu.fx &+ offset)
        }
        Host.store(0xFFFF as UInt32, cpu.fx &+ 28)
    }

    package func copyFXSaveImage(to image: UnsafeMutableRawPointer) {
        for offset in stride(from: 0 as UInt, to: 512, by: 8) {
            unsafe image.storeBytes(of: Host.load(UInt64.self, cpu.fx &+ offset), toByteOffset: Int(offset), as: UInt64.self)
        }
    }

    /// To be called after RAM was written from outside, where code may have been.
    package func memoryWritten(at physical: UInt64, count: Int) { cpu.storedPhysical(physical, count) }
}
