-- Takes a token of all callers' bucket and one of a caller's: both or none.
-- KEYS: the bucket of all, the bucket of the caller
-- ARGV: new tokens a second of each (0: no limit), the most tokens that a bucket holds
-- Returns 0 where both had a token, 1 where the bucket of all had none, 2 where the caller's had none; and what is left in each.
-- The clock is that of Redis, so that the relays need not agree on the time.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local burst = tonumber(ARGV[3])

local function tokens_of(key, rate)
  local kept = redis.call('HMGET', key, 'tokens', 'at')
  if not kept[1] then return burst end
  local passed = math.max(0, now - tonumber(kept[2]))
  return math.min(burst, tonumber(kept[1]) + passed * rate)
end

local rates, left, refused = {tonumber(ARGV[1]), tonumber(ARGV[2])}, {burst, burst}, 0
for number, key in ipairs(KEYS) do
  if rates[number] > 0 then
    left[number] = tokens_of(key, rates[number])
    if refused == 0 and left[number] < 1 then refused = number end
  end
end
if refused == 0 then
  for number, key in ipairs(KEYS) do
    if rates[number] > 0 then
      left[number] = left[number] - 1
      redis.call('HSET', key, 'tokens', string.format('%.9f', left[number]), 'at', string.format('%.6f', now))
      -- A bucket that is full again is as good as none.
      redis.call('PEXPIRE', key, math.ceil(burst / rates[number] * 1000) + 1000)
    end
  end
end
return {refused, string.format('%.9f', left[1]), string.format('%.9f', left[2])}
