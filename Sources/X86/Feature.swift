/// What a processor must have, as CPUID tells it, to execute a row. Where it has not, the row raises #UD.
///
/// A VEX-encoded row also needs AVX (or, for `bmi1` and `bmi2`, only the feature itself).
public enum Feature: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    /// Every processor that has long mode.
    case base
    case x87, cmov, fcmov, cx8, cx16, sep, syscall, lahf
    case mmx, fxsr, sse, sse2, sse3, ssse3, sse41, sse42, sse4a
    case popcnt, lzcnt, movbe, bmi1, bmi2, adx
    case aes, pclmulqdq, sha, gfni, rdrand, rdseed
    case clflush, clflushopt, clwb, prefetchw, wbnoinvd, clzero
    case xsave, xsaveopt, xsavec, xsaves
    case fsgsbase, rdtscp, rdpid, rdpru, invpcid, smap, pku
    case monitor, monitorx, vmx, svm
    case avx, avx2, fma, f16c
    /// The feature of the legacy encoding together with AVX.
    case aesVEX, pclmulqdqVEX, gfniVEX
    case vaes, vpclmulqdq
}
