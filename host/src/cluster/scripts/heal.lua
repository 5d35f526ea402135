-- Puts all of a partition, of which Redis has lost something, unless another node has taken it since.
-- KEYS and ARGV: as of a commit. The fields to set are all records that there are; those to delete are pairs of a node and the
-- number of its last event that the owner knows; the waiting events are those that the owner has, with their fields.
local mine, me, number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'owner', 'b' .. (mine + 1))
local epoch = tonumber(now[1])
if epoch and (epoch > mine or (epoch == mine and now[3] ~= me)) then
  return {'fenced', now[4]}
end
if epoch == mine and tonumber(now[2]) >= number then
  return {'done'}
end
--HELPERS
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 1) == 'r' then
    redis.call('HDEL', KEYS[1], field)
  end
end
each(tonumber(ARGV[4]), 'HSET', KEYS[1])
-- Events that the owner knows and does not have any more were handled.
local known = {}
for i = at, at + tonumber(ARGV[5]) - 1, 2 do
  local origin, last = ARGV[i], tonumber(ARGV[i + 1])
  known[origin] = last
  if tonumber(redis.call('HGET', KEYS[1], 'f' .. origin) or 0) < last then
    redis.call('HSET', KEYS[1], 'f' .. origin, last)
  end
end
at = at + tonumber(ARGV[5])
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  local origin, event = string.match(field, '^(%d+):(%d+)$')
  if origin and known[origin] and tonumber(event) <= known[origin] then
    redis.call('HDEL', KEYS[2], field)
  end
end
each(tonumber(ARGV[6]), 'HSET', KEYS[2])
send()
return {'done'}
