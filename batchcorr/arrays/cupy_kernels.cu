// The two passes on a CUDA device. What each array is, `cupy_kernels.py` says.
//
// A thread has one feature g of one stripe, or of one cell or batch; stripes are runs of
// rows of one cell, in the order of `order`. Neighbouring threads have neighbouring
// features, so that a warp reads whole lines of a matrix in C order. Sums are float64,
// and each is one thread's own: no atomics, so the same bits however a launch is cut.
//
// REAL is float or double, INDEX the integer of a sparse matrix. No shared memory and no
// warp intrinsics: compiled as C++ with a loop over the threads, this is the same program.

typedef long long int64;

#define CHUNK 64  // rows between two mergers
#define AHEAD 8   // rows that are loaded before any is added
#define SLOPES 4  // slopes whose products fit into registers

enum { COUNT, BASE, TOTAL, SQUARES, SUMS };

__device__ inline int64 first_task() {
    return (int64)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline int64 step_of_tasks() {
    return (int64)gridDim.x * blockDim.x;
}

// Values are measured from the running mean, itself measured from the first value; a
// chunk is merged in by Chan's rule. One value throughout gives squares of exactly 0.
template <int MOST>  // slopes at most: what is not there takes no registers
__device__ inline void sums_of_task(
    int64 t, const REAL *x, int64 row_step, int64 column_step, int64 n_features,
    const int64 *order, const int64 *bounds, const int64 *batch,
    const double *origin, const double *slopes, int64 slope_step, int64 n_slopes,
    double *mean, double *squares, double *cross) {
    const int64 stripe = t / n_features, g = t % n_features;
    const int64 end = bounds[stripe + 1];
    const REAL *column = x + g * column_step;
    const double fixed = MOST ? origin[batch[stripe] * n_features + g] : 0.0;
    const double first = (double)column[order[bounds[stripe]] * row_step];
    double centre = first, off = 0.0, merged = 0.0, n = 0.0;
    double product[MOST + 1] = {0.0};
    for (int64 start = bounds[stripe]; start < end; start += CHUNK) {
        const int64 stop = start + CHUNK < end ? start + CHUNK : end;
        double total = 0.0, total_squares = 0.0;
        for (int64 k = start; k < stop; k += AHEAD) {
            REAL value[AHEAD];
            for (int u = 0; u < AHEAD; ++u) {
                if (k + u < stop) {
                    value[u] = column[order[k + u] * row_step];
                }
            }
            for (int u = 0; u < AHEAD; ++u) {
                if (k + u < stop) {
                    const double d = (double)value[u] - centre;
                    total += d;
                    total_squares += d * d;
                    for (int s = 0; s < MOST; ++s) {
                        if (s < n_slopes) {
                            product[s] += slopes[order[k + u] * slope_step + s]
                                          * ((double)value[u] - fixed);
                        }
                    }
                }
            }
        }
        const double m = (double)(stop - start), share = m / (n + m);
        const double own = total / m;
        double inside = total_squares - own * total;
        inside = inside < 0.0 ? 0.0 : inside;  // NaN stays
        const double apart = own + (centre - first) - off;
        merged += inside + apart * apart * n * share;
        off += apart * share;
        centre = first + off;
        n += m;
    }
    mean[t] = centre;
    squares[t] = merged;
    for (int s = 0; s < MOST; ++s) {
        if (s < n_slopes) {
            cross[(stripe * n_slopes + s) * n_features + g] = product[s];
        }
    }
}

extern "C" __global__ void sums(
    const REAL *x, int64 row_step, int64 column_step, int64 n_features,
    const int64 *order, const int64 *bounds, const int64 *batch, int64 n_stripes,
    const double *origin, const double *slopes, int64 slope_step, int64 n_slopes,
    double *mean, double *squares, double *cross) {
    for (int64 t = first_task(); t < n_stripes * n_features; t += step_of_tasks()) {
        sums_of_task<0>(t, x, row_step, column_step, n_features, order, bounds, batch,
                        origin, slopes, slope_step, 0, mean, squares, cross);
    }
}

extern "C" __global__ void sloped_sums(
    const REAL *x, int64 row_step, int64 column_step, int64 n_features,
    const int64 *order, const int64 *bounds, const int64 *batch, int64 n_stripes,
    const double *origin, const double *slopes, int64 slope_step, int64 n_slopes,
    double *mean, double *squares, double *cross) {
    for (int64 t = first_task(); t < n_stripes * n_features; t += step_of_tasks()) {
        sums_of_task<SLOPES>(t, x, row_step, column_step, n_features, order, bounds,
                             batch, origin, slopes, slope_step, n_slopes, mean, squares,
                             cross);
    }
}

// Merge the stripes of each cell by Chan's rule, in their order.
extern "C" __global__ void merge(
    const double *mean, const double *squares, const int64 *bounds,
    const int64 *stripes, int64 n_cells, int64 n_features,
    double *cell_mean, double *cell_squares) {
    for (int64 t = first_task(); t < n_cells * n_features; t += step_of_tasks()) {
        const int64 cell = t / n_features, g = t % n_features;
        double base = 0.0, off = 0.0, merged = 0.0, n = 0.0;
        for (int64 s = stripes[cell]; s < stripes[cell + 1]; ++s) {
            const double own = mean[s * n_features + g];
            base = n == 0.0 ? own : base;
            const double m = (double)(bounds[s + 1] - bounds[s]), share = m / (n + m);
            const double apart = (own - base) - off;
            merged += squares[s * n_features + g] + apart * apart * n * share;
            off += apart * share;
            n += m;
        }
        cell_mean[t] = base + off;
        cell_squares[t] = merged;
    }
}

// Add up the products of each batch's stripes, in their order: `width` values a stripe.
extern "C" __global__ void add(
    const double *parts, const int64 *stripes, int64 n_batches, int64 width,
    double *totals) {
    for (int64 t = first_task(); t < n_batches * width; t += step_of_tasks()) {
        const int64 batch = t / width, place = t % width;
        double total = 0.0;
        for (int64 s = stripes[batch]; s < stripes[batch + 1]; ++s) {
            total += parts[s * width + place];
        }
        totals[t] = total;
    }
}

// r x + s + slopes tilt. No x stands for zeros; `out` may be x: a value is read and then
// written by one thread. The order of the sum is that of every other kind of matrix.
extern "C" __global__ void affine(
    const REAL *x, int64 row_step, int64 column_step, int64 n_features,
    const int64 *order, const int64 *bounds, const int64 *cell, const int64 *batch,
    int64 n_stripes, const double *scale, const double *shift, const double *slopes,
    int64 n_slopes, const double *tilt,
    REAL *out, int64 out_row_step, int64 out_column_step) {
    for (int64 t = first_task(); t < n_stripes * n_features; t += step_of_tasks()) {
        const int64 stripe = t / n_features, g = t % n_features;
        const int64 stop = bounds[stripe + 1];
        const double r = scale[batch[stripe] * n_features + g];
        const double level = shift[cell[stripe] * n_features + g];
        const double *own = tilt + batch[stripe] * n_slopes * n_features + g;
        for (int64 k = bounds[stripe]; k < stop; k += AHEAD) {
            int64 row[AHEAD];
            REAL value[AHEAD];
            for (int u = 0; u < AHEAD; ++u) {
                if (k + u < stop) {
                    row[u] = order[k + u];
                    value[u] = x ? x[row[u] * row_step + g * column_step] : (REAL)0;
                }
            }
            for (int u = 0; u < AHEAD; ++u) {
                if (k + u < stop) {
                    double line = level;
                    for (int64 s = 0; s < n_slopes; ++s) {
                        line += slopes[row[u] * n_slopes + s] * own[s * n_features];
                    }
                    out[row[u] * out_row_step + g * out_column_step] =
                        (REAL)(r * (double)value[u] + line);
                }
            }
        }
    }
}

// A block has one stripe and takes it row by row: the threads share the stored values of
// a row, which are all of different features, and wait for each other at its end.
extern "C" __global__ void csr_sums(
    const REAL *data, const INDEX *indices, const INDEX *indptr, int64 n_features,
    const int64 *order, const int64 *bounds, int64 n_stripes,
    const double *slopes, int64 n_slopes, double *found, double *cross) {
    for (int64 stripe = blockIdx.x; stripe < n_stripes; stripe += gridDim.x) {
        for (int64 k = bounds[stripe]; k < bounds[stripe + 1]; ++k) {
            const int64 row = order[k];
            for (int64 p = (int64)indptr[row] + threadIdx.x; p < indptr[row + 1];
                 p += blockDim.x) {
                const int64 g = indices[p];
                const double value = (double)data[p];
                double *own = found + (stripe * n_features + g) * SUMS;
                if (own[COUNT] == 0.0) {
                    own[BASE] = value;
                }
                const double d = value - own[BASE];
                own[COUNT] += 1.0;
                own[TOTAL] += d;
                own[SQUARES] += d * d;
                for (int64 s = 0; s < n_slopes; ++s) {
                    cross[(stripe * n_slopes + s) * n_features + g] +=
                        slopes[row * n_slopes + s] * value;
                }
            }
            __syncthreads();
        }
    }
}

// Write r x + s + slopes tilt where values are stored; `affine` without x wrote the rest.
extern "C" __global__ void csr_affine(
    const REAL *data, const INDEX *indices, const INDEX *indptr, int64 n_rows,
    int64 n_features, const int64 *codes, const int64 *batch_of_cell,
    const double *scale, const double *shift, const double *slopes, int64 n_slopes,
    const double *tilt, REAL *out, int64 out_row_step, int64 out_column_step) {
    for (int64 row = blockIdx.x; row < n_rows; row += gridDim.x) {
        const int64 cell = codes[row], batch = batch_of_cell[cell];
        for (int64 p = (int64)indptr[row] + threadIdx.x; p < indptr[row + 1];
             p += blockDim.x) {
            const int64 g = indices[p];
            double line = shift[cell * n_features + g];
            for (int64 s = 0; s < n_slopes; ++s) {
                line += slopes[row * n_slopes + s]
                        * tilt[(batch * n_slopes + s) * n_features + g];
            }
            out[row * out_row_step + g * out_column_step] =
                (REAL)(scale[batch * n_features + g] * (double)data[p] + line);
        }
    }
}
